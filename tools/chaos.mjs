// The whole service as real processes, with faults: node tools/chaos.mjs [--minutes M] [--seed N] [--help]
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

await setupOrExit();
const { bundle } = await import('./build/bundles.mjs');
await bundle({ chaos: 'apps/chaos/src/main.ts' }, 'dist/tools');
process.exitCode = await runNode(['--enable-source-maps', join(root, 'dist', 'tools', 'chaos.mjs'), ...process.argv.slice(2)]);

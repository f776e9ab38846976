// Forced races on PostgreSQL: node tools/races.mjs [--races N] [--seed N] [--help]
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

await setupOrExit();
const { bundle } = await import('./build/bundles.mjs');
await bundle({ races: 'apps/races/src/main.ts' }, 'dist/tools');
process.exitCode = await runNode(['--enable-source-maps', join(root, 'dist', 'tools', 'races.mjs'), ...process.argv.slice(2)]);

// The orchestrator on a virtual clock, with faults: node tools/simulation.mjs [--seed N] [--help]
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

await setupOrExit();
const { bundle } = await import('./build/bundles.mjs');
await bundle({ simulation: 'apps/simulation/src/main.ts' }, 'dist/tools');
process.exitCode = await runNode(['--enable-source-maps', '--max-semi-space-size=64', join(root, 'dist', 'tools', 'simulation.mjs'), ...process.argv.slice(2)]);

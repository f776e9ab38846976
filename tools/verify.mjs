// Compares the engine with reference software: node tools/verify.mjs --adapter <PEFT folder> [--help]
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

await setupOrExit();
const { bundle } = await import('./build/bundles.mjs');
await bundle({ verify: 'tools/verify/main.ts' }, 'dist/tools');
process.exitCode = await runNode(['--enable-source-maps', join(root, 'dist', 'tools', 'verify.mjs'), ...process.argv.slice(2)], { env: { ...process.env, TUNEFLEET_ROOT: root } });

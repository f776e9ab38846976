// Writes docs/guide/conformance.md: node tools/conformance.mjs
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

await setupOrExit();
const { bundle } = await import('./build/bundles.mjs');
await bundle({ conformance: 'libs/ml/tuners/src/conformance/render.ts' }, 'dist/tools');
const { renderConformance } = await import(pathToFileURL(join(root, 'dist', 'tools', 'conformance.mjs')).href);
await writeFile(join(root, 'docs', 'guide', 'conformance.md'), renderConformance());

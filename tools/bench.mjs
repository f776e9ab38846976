// Measures: node tools/bench.mjs [name ...] [--json file] [-- arguments for the benches]
// A bench is tools/bench/<name>.ts with `export async function run(args: string[]): Promise<Row[]>`,
// Row = {name, unit, value, peer?, ratio?}: ours, what the peer did in the same run, and ours relative to it.
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { formatRows, parseRows } from './bench/rows.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

const cut = process.argv.indexOf('--');
const own = process.argv.slice(2, cut === -1 ? undefined : cut);
const passedOn = cut === -1 ? [] : process.argv.slice(cut + 1);
const { values, positionals } = parseArgs({ args: own, allowPositionals: true, options: { json: { type: 'string' } } });

const folder = join(root, 'tools', 'bench');
const available = readdirSync(folder)
  .filter((name) => /^[a-z0-9-]+\.ts$/.test(name))
  .map((name) => name.slice(0, -'.ts'.length));
const chosen = positionals.length > 0 ? positionals : available;
const unknown = chosen.filter((name) => !available.includes(name));
if (unknown.length > 0 || chosen.length === 0) {
  process.stderr.write(`no bench "${unknown.join(', ')}"; there are: ${available.join(', ') || 'none'}\n`);
  process.exit(1);
}

await setupOrExit();
// oneDNN's kernels are the fast ones; TensorFlow reads this once, when it is loaded.
process.env.TF_ENABLE_ONEDNN_OPTS ??= '1';
process.env.TF_CPP_MIN_LOG_LEVEL ??= '2';

const { bundle } = await import('./build/bundles.mjs');
await bundle(Object.fromEntries(chosen.map((name) => [name, `tools/bench/${name}.ts`])), 'dist/bench');
const rows = [];
for (const name of chosen) {
  const file = join(root, 'dist', 'bench', `${name}.mjs`);
  if (!existsSync(file)) throw new Error(`${file} was not built`);
  const { run } = await import(pathToFileURL(file).href);
  rows.push(...parseRows(name, await run(passedOn)));
}
process.stdout.write(formatRows(rows));
if (values.json !== undefined) writeFileSync(resolve(values.json), `${JSON.stringify(rows, null, 2)}\n`);

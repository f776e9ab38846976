// Measures: node tools/bench.mjs <name ...> [--json file] [-- arguments for the benches]
// A bench is tools/bench/<name>.ts with `export async function run(args: string[]): Promise<Row[]>`,
// Row = {name, unit, value, peer?, ratio?}: ours, what the peer did in the same run, and ours relative to it.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { formatRows, parseRows } from './bench/rows.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

const folder = join(root, 'tools', 'bench');
const available = readdirSync(folder)
  .filter((name) => /^[a-z0-9-]+\.ts$/.test(name))
  .map((name) => name.slice(0, -'.ts'.length));
const usage = `npm run bench -- <name ...> [--json <file>] [-- <arguments for the benches>]
Benches: ${available.join(', ')}; or all, which takes long. Their arguments: npm run bench -- <name> --help
`;

const cut = process.argv.indexOf('--');
const { values, positionals } = ownArguments(process.argv.slice(2, cut === -1 ? undefined : cut));
const passedOn = cut === -1 ? [] : process.argv.slice(cut + 1);
if (positionals.length === 0) {
  process.stdout.write(usage);
  process.exit(values.help ? 0 : 1);
}
const chosen = positionals.includes('all') ? available : positionals;
const unknown = chosen.filter((name) => !available.includes(name));
if (unknown.length > 0) giveUp(`there is no bench "${unknown.join('", "')}"`);
if (values.help || passedOn.includes('--help')) {
  for (const name of chosen) process.stdout.write(`${headOf(join(folder, `${name}.ts`))}\n`);
  process.exit(0);
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
  try {
    rows.push(...parseRows(name, await run(passedOn)));
  } catch (error) {
    // Of an option that is wrong, what is allowed says more than where it was found.
    if (!String(error.code).startsWith('ERR_PARSE_ARGS_')) throw error;
    process.stderr.write(`${name}: ${error.message.replaceAll('\n', ' ')} (npm run bench -- ${name} --help)\n`);
    process.exit(1);
  }
}
process.stdout.write(formatRows(rows));
if (values.json !== undefined) writeFileSync(resolve(values.json), `${JSON.stringify(rows, null, 2)}\n`);

function ownArguments(args) {
  try {
    return parseArgs({ args, allowPositionals: true, options: { json: { type: 'string' }, help: { type: 'boolean', short: 'h', default: false } } });
  } catch (error) {
    return giveUp(error.message);
  }
}

/** The comment at the head of a bench: what it measures and what arguments it takes. */
function headOf(file) {
  const head = /^\/\*\*([^]*?)\*\//.exec(readFileSync(file, 'utf8'))?.[1] ?? `${file} says nothing about itself`;
  return head.replace(/^ *\* ?/gm, '').trim();
}

function giveUp(message) {
  process.stderr.write(`${message}\n\n${usage}`);
  process.exit(1);
}

/** Text by several adapters at once through the built command line and engine, against the same adapters put together by hand. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { jest } from '@jest/globals';
import { build } from 'esbuild';
import { generate, PrefixCache, stopTokens } from '@tunefleet/ml-generation';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { renderPrompt, TextTokenizer } from '@tunefleet/ml-tokenizers';
import { AdapterPool, createTuner, parseTunerSpec } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';

jest.setTimeout(120_000);

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), '../../../../..');
const bundle = join(root, 'dist', `generate-test-${process.pid}`);
const ADAPTERS = { a: { kind: 'lora', r: 2, target_modules: 'all-linear' }, b: { kind: 'ia3' }, c: { kind: 'lora', r: 3 } };
let folder: string;
let wanted: Readonly<Record<string, string>>;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'generate-'));
  const base = join(folder, 'model');
  await writeTinyModel(base);
  await build({
    entryPoints: { cli: join(root, 'apps/cli/src/main.ts'), engine: join(root, 'apps/worker/src/engine/main.ts') },
    ...{ outdir: bundle, outExtension: { '.js': '.mjs' }, bundle: true, platform: 'node', format: 'esm', packages: 'external', target: 'node20', tsconfig: join(root, 'tsconfig.base.json'), logLevel: 'silent' },
  });
  const config: unknown = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8'));
  using model = await loadCausalLm(await openDevice({ backend: 'auto' }), { folder: base, config, computeDtype: 'f32' });
  using pool = new AdapterPool(model, folder);
  for (const [at, [name, fields]] of Object.entries(ADAPTERS).entries()) {
    const tuner = createTuner(parseTunerSpec(fields), model);
    const start = tuner.initialValues(1, { model, tokenise: () => new Int32Array() });
    const values = start.map((value, index) => value + 0.4 * Math.sin(index * (at + 1)));
    mkdirSync(join(folder, name));
    await tuner.save(values, join(folder, name), { id: base, revision: 'none' });
    pool.addValues(name, tuner, values);
  }
  const tokenizer = await TextTokenizer.load(base);
  const prompt = renderPrompt(tokenizer, [{ role: 'user', content: 'spam?' }]);
  const textOf = async (...choices: Parameters<AdapterPool['activate']>[0]): Promise<string> => {
    using active = await pool.activate(choices);
    using cache = new PrefixCache(model, active.hook);
    const { ids } = await generate(cache, prompt, { maxTokens: 12, stopIds: await stopTokens(tokenizer, base, config) });
    return tokenizer.decode(ids, { skipSpecialTokens: true });
  };
  wanted = { none: await textOf(), a: await textOf('a'), ab: await textOf('a', 'b'), ac: await textOf('a', 'c'), abc: await textOf('a', 'b', 'c'), half: await textOf({ name: 'a', weight: 0.5 }, { name: 'b', weight: 1 }) };
});
afterAll(() => {
  rmSync(bundle, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

async function tunefleet(...args: string[]): Promise<{ text: string; notes: string }> {
  const environment = { ...process.env, NODE_OPTIONS: '', TUNEFLEET_CACHE_DIR: join(folder, 'cache'), TUNEFLEET_MODEL_SOURCES: 'mirror' };
  const { stdout, stderr } = await run(process.execPath, [join(bundle, 'cli.mjs'), ...args], { env: environment, cwd: folder });
  return { text: stdout.replace(/\n$/, ''), notes: stderr };
}

const OPTIONS = ['--prompt', 'spam?', '--max-tokens', '12', '--dtype', 'f32'];

test('adapters in a row, with weights, and merged', async () => {
  expect(new Set(Object.values(wanted)).size).toBe(6);
  expect((await tunefleet('adapters', 'generate', 'a', 'b', 'c', ...OPTIONS)).text).toBe(wanted['abc']);
  expect((await tunefleet('adapters', 'generate', 'a', 'b', '--weights', '0.5,1', ...OPTIONS)).text).toBe(wanted['half']);
  const merged = await tunefleet('generate', '--adapter', 'a', '--adapter', 'b', '--merge', ...OPTIONS);
  expect(merged.text).toBe(wanted['ab']);
  expect(merged.notes).toMatch(/merged; checked: logits differ by at most/);
  expect((await tunefleet('generate', '--adapter', 'a', ...OPTIONS)).text).toBe(wanted['a']);
});

test('several adapters exported together are a folder that answers with all of them', async () => {
  const { notes } = await tunefleet('adapters', 'export', 'a', 'c', '--format', 'swift', '--names', 'x,xy', '--out', 'together');
  expect(notes).toMatch(/x, xy written to/);
  expect((await tunefleet('adapters', 'generate', 'together', '--model', join(folder, 'model'), ...OPTIONS)).text).toBe(wanted['ac']);
  await expect(tunefleet('adapters', 'export', 'a', 'c', '--format', 'merged', '--out', 'none')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--format merged takes one adapter, got 2') as string });
});

test('what is wrong is said, with the exit code of wrong usage', async () => {
  await expect(tunefleet('adapters', 'generate', 'a', 'b', '--weights', '1', ...OPTIONS)).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--weights has 1 numbers for 2 adapters') as string });
  await expect(tunefleet('adapters', 'generate', '--prompt', 'spam?')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('adapters come first') as string });
});

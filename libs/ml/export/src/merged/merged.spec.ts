/** Merged weights against base and adapter: logits of every decoder, every linear tuner, and what the folder holds. */
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFolder, readAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import { architectureSpecs, loadCausalLm } from '@tunefleet/ml-models';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { createTuner, parseTunerSpec, type BindableModel } from '@tunefleet/ml-tuners';
import { exportMerged } from './export-merged';
import { MergedWeights } from './merged-weights';
import { largestDifference } from './verify';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const BASES = ['tied', 'scaled', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];

let work = '';
let device: Device;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'merged-'));
  device = await openDevice({ backend: 'tensorflow' });
});
afterAll(() => rm(work, { recursive: true, force: true }));

const TUNERS: Readonly<Record<string, object>> = {
  lora: { kind: 'lora', r: 4, use_rslora: true, rank_pattern: { '.*0.*': 2 }, target_modules: 'all-linear', init_lora_weights: false },
  dora: { kind: 'lora', r: 2, use_dora: true, target_modules: 'all-linear', init_lora_weights: false },
  biases: { kind: 'lora', r: 2, lora_bias: true, bias: 'lora_only', target_modules: ['q_proj', 'c_attn'], init_lora_weights: false },
  ia3: { kind: 'ia3', init_ia3_weights: false },
  full: { kind: 'full' },
  'last block': { kind: 'full', last_blocks: 1 },
};

/** The others differ from LoRA in nothing that depends on the architecture but the layout of its weights and its biases. */
const CASES = BASES.flatMap((name) => Object.keys(TUNERS).filter((label) => label === 'lora' || name === 'gpt2' || name === 'qwen2' || (name === 'tied' && label !== 'biases')).map((label) => [name, label] as const));

describe('merged weights compute what base and adapter do', () => {
  test.each(CASES)('%s with %s', async (name, label) => {
    const base = join(libraries, 'models', 'fixtures', name);
    const config = await configOf(base);
    const adapter = await makeAdapter(join(work, `${name}-${label}`), base, forBase(TUNERS[label] ?? {}, name));
    const merged = join(work, `${name}-${label}-merged`);
    using weights = MergedWeights.open(base, config, await readAdapterFiles(adapter));
    await exportMerged(weights, merged, { base, config, dtype: 'F32', shardBytesMax: 20_000 });
    const result = await largestDifference(device, { base, config, adapter, merged, mergedConfig: await configOf(merged), dtype: 'F32' });
    expect(result).toMatchObject({ equal: true, limit: 1e-5 * Math.max(1, result.largestLogit) });
    expect((await readdir(merged)).filter((file) => file.endsWith('.safetensors')).length).toBeGreaterThan(1);
  });
});

describe('tables and heads', () => {
  test.each([
    ['qwen3', 'embedding', { target_modules: ['q_proj', 'embed_tokens'] }, true],
    ['qwen3', 'embedding and head together', { target_modules: ['embed_tokens'], ensure_weight_tying: true }, false],
    ['qwen3', 'head', { target_modules: ['q_proj', 'lm_head'] }, true],
    ['qwen3', 'tables trained whole', { target_modules: ['q_proj'], modules_to_save: ['embed_tokens', 'lm_head'] }, true],
    ['qwen3', 'tokens', { target_modules: ['q_proj'], trainable_token_indices: [3, 10, 60] }, false],
    ['mistral', 'embedding and head', { target_modules: ['embed_tokens', 'lm_head'] }, false],
    ['gemma2', 'embedding', { target_modules: ['embed_tokens'] }, true],
    ['gpt2', 'embedding', { target_modules: ['wte', 'c_attn'] }, true],
  ] as const)('%s with %s', async (name, label, fields, unties) => {
    const base = join(libraries, 'models', 'fixtures', name);
    const config = await configOf(base);
    const adapter = await makeAdapter(join(work, `${name}-${label}`), base, { kind: 'lora', r: 2, init_lora_weights: false, ...fields });
    const merged = join(work, `${name}-${label}-merged`);
    using weights = MergedWeights.open(base, config, await readAdapterFiles(adapter));
    expect(weights.unties).toBe(unties);
    await exportMerged(weights, merged, { base, config, dtype: null });
    const result = await largestDifference(device, { base, config, adapter, merged, mergedConfig: await configOf(merged), dtype: 'F32' });
    expect(result.largestDifference).toBeLessThan(1e-5 * Math.max(1, result.largestLogit));
  });
});

describe('the folder', () => {
  const base = join(libraries, 'models', 'fixtures', 'qwen2');
  const adapter = join(libraries, 'tuners', 'fixtures', 'architectures', 'qwen2');

  test('leaves what the adapter does not change bit for bit, and rounds to the wanted dtype once', async () => {
    const config = await configOf(base);
    using weights = MergedWeights.open(base, config, await readAdapterFiles(adapter));
    const folder = join(work, 'rounded');
    await exportMerged(weights, folder, { base, config, dtype: 'BF16' });
    using files = SafetensorsFolder.open(folder);
    expect(new Set(files.names().map((tensor) => files.entry(tensor).dtype))).toEqual(new Set(['BF16']));
    expect(await configOf(folder)).toMatchObject({ dtype: 'bfloat16', model_type: 'qwen2' });
    const norm = 'model.norm.weight';
    using untouched = SafetensorsFolder.open(base);
    expect(Buffer.from(weights.bytes(norm, 'F32')).equals(untouched.read(norm))).toBe(true);
    const result = await largestDifference(device, { base, config, adapter, merged: folder, mergedConfig: await configOf(folder), dtype: 'BF16' });
    expect(result).toMatchObject({ equal: true });
    expect(result.largestDifference).toBeGreaterThan(1e-5);
  });

  test('is not written over another', async () => {
    const config = await configOf(base);
    using weights = MergedWeights.open(base, config, null);
    const before = await readdir(adapter);
    await expect(exportMerged(weights, adapter, { base, config, dtype: null })).rejects.toMatchObject({ code: 'conflict' });
    expect(await readdir(adapter)).toEqual(before);
  });

  test('is refused for adapters that are no change of weights, and for numbers that are not finite', async () => {
    const config = await configOf(base);
    const open = (files: AdapterFiles) => () => MergedWeights.open(base, config, files);
    const prompt = await makeAdapter(join(work, 'prompt'), base, { kind: 'prompt-tuning', num_virtual_tokens: 2 });
    expect(open(await readAdapterFiles(prompt))).toThrow(/Prompt.* cannot be merged into the weights: it puts tokens/i);
    const good = await readAdapterFiles(adapter);
    const [first, ...others] = good.tensors;
    const data = new Float32Array(first!.data.slice().buffer);
    data[1] = NaN;
    expect(open({ ...good, tensors: [{ ...first!, data: new Uint8Array(data.buffer) }, ...others] })).toThrow(/tensor "[^"]*lora_[AB].weight" holds numbers that are not finite \(NaN at element 1\)/);
  });
});

async function configOf(folder: string): Promise<unknown> {
  return JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
}

/** With those of the named modules that the base has. */
function forBase(fields: object, name: string): object {
  const targets = (fields as { target_modules?: unknown }).target_modules;
  return Array.isArray(targets) ? { ...fields, target_modules: targets.filter((target) => (target === 'c_attn') === (name === 'gpt2')) } : fields;
}

/** An adapter that changes every target. */
async function makeAdapter(folder: string, base: string, fields: object): Promise<string> {
  using model = await loadCausalLm(device, { folder: base, config: await configOf(base), computeDtype: 'f32' });
  const tuner = createTuner(parseTunerSpec(fields), model as BindableModel);
  const values = tuner.initialValues(7, {
    model,
    tokenise: () => new Int32Array(),
  });
  const moved = values.map((value, index) => value + 0.05 * Math.sin(index * 1.7 + 1));
  await tuner.save(moved, folder, { id: base, revision: 'local-1' }, model);
  return folder;
}

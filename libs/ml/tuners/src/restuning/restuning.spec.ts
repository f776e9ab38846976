/** ResTuning beside modules against its definition written out in torch (`tools/golden/restuning_branches_fixture.py`); then files, wiring and refusals. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { describeCausalLm, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec } from '..';
import { largest, logitsWith, maxDifference, parametersOf, startWith, trainingPass } from '../testing';
import { planBranches } from './plan';
import type { ResTuningSpec } from './spec';

jest.setTimeout(60_000);

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const BASE = join(libraries, 'models', 'fixtures', 'tied');
const FIXTURES = join(libraries, 'tuners', 'fixtures', 'restuning-branches');
const CASES = ['adapter', 'prefix'] as const;
const [rows, columns] = [2, 24];

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'restuning-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

async function openBase(backend: 'tensorflow' | 'wasm' = 'tensorflow', computeDtype: 'f32' | 'bf16' = 'f32', name = 'tied'): Promise<CausalLm> {
  const folder = name === 'tied' ? BASE : join(libraries, 'models', 'fixtures', name);
  return loadCausalLm(await openDevice({ backend }), { folder, config: JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as unknown, computeDtype });
}

const specOf = (fields: Record<string, unknown> = {}): ResTuningSpec => parseTunerSpec({ kind: 'restuning', ...fields }) as ResTuningSpec;

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  let device: Device;
  let model: CausalLm;
  beforeAll(async () => {
    model = await openBase(backend);
    device = model.device;
  });
  afterAll(() => model[Symbol.dispose]());

  test.each(CASES)('%s: logits, loss and every gradient are those of the definition', async (name) => {
    const golden = readGolden(name);
    const adapter = await loadAdapter(model, join(FIXTURES, name));
    expect([adapter.tuner.kind, adapter.notices]).toEqual(['restuning', []]);
    const batch = { ids: golden.integers('ids'), rows, columns };
    expect(maxDifference(logitsWith(model, batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    expect(maxDifference(logitsWith(model, batch), golden.floats('logits'))).toBeGreaterThan(0.1);
    for (const recomputeBlocks of [false, true]) {
      const { loss, gradients: got } = trainingPass(model, adapter.tuner, adapter.values, batch, golden.integers('labels'), { recomputeBlocks });
      expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(2e-5);
      adapter.tuner.parameters.forEach((parameter, index) => {
        const wanted = golden.floats(`grad.${parameter.name}`);
        expect(maxDifference(got[index] ?? [], wanted)).toBeLessThan(1e-5 + 1e-4 * largest(wanted));
        expect(largest(wanted)).toBeGreaterThan(1e-6);
      });
    }
    adapter.dispose();
  });

  test.each(CASES)('%s: saved and read again it is the same', async (name) => {
    const [given, folder] = [join(FIXTURES, name), join(work, `${backend}-${name}`)];
    const adapter = await loadAdapter(model, given);
    await adapter.tuner.save(adapter.values, folder, { id: 'tiny/tied', revision: 'local-1' });
    const again = await loadAdapter(model, folder);
    expect(again.values).toEqual(adapter.values);
    again.dispose();
    adapter.dispose();
    expect(JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'))).toEqual(JSON.parse(await readFile(join(given, 'adapter_config.json'), 'utf8')));
    using a = SafetensorsFile.open(join(given, 'adapter_model.safetensors'));
    using b = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
    for (const [tensor, { shape }] of a.tensors) {
      expect(b.entry(tensor).shape).toEqual(shape);
      expect(Buffer.from(b.read(tensor)).equals(a.read(tensor))).toBe(true);
    }
    expect(b.tensors.size).toBe(a.tensors.size);
  });

  test('a fresh one starts at the base; nothing is left on the device', () => {
    const golden = readGolden('adapter');
    const batch = { ids: golden.integers('ids'), rows, columns };
    const tuner = createTuner(specOf(), model);
    const values = tuner.initialValues(5, startWith(model));
    device.scope(() => {
      const hook = tuner.bind(model, parametersOf(device, tuner, values), null);
      expect(maxDifference(logitsWith(model, batch, { adapter: hook }), logitsWith(model, batch))).toBe(0);
    });
    const pass = (recomputeBlocks: boolean) => trainingPass(model, tuner, values, batch, golden.integers('labels'), { recomputeBlocks });
    const first = pass(false);
    const count = () => device.memory.liveHandles - device.cachedScalars;
    const before = count();
    expect(pass(true).loss).toBe(first.loss);
    expect(count()).toBe(before);
  });
});

test.each(CASES)('%s in bf16 stays near', async (name) => {
  using model = await openBase('tensorflow', 'bf16');
  const golden = readGolden(name);
  const adapter = await loadAdapter(model, join(FIXTURES, name));
  const { loss } = trainingPass(model, adapter.tuner, adapter.values, { ids: golden.integers('ids'), rows, columns }, golden.integers('labels'));
  expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(0.05);
  adapter.dispose();
});

test.each(['gpt2', 'gemma2'])('%s: both forms fit', async (name) => {
  using model = await openBase('tensorflow', 'f32', name);
  const ids = Int32Array.from({ length: 12 }, (_, i) => (i * 7) % 64);
  for (const tuner_cfg of ['res_adapter', 'res_prefix']) {
    const tuner = createTuner(specOf({ tuner_cfg }), model);
    const folder = join(work, `${name}-${tuner_cfg}`);
    const values = tuner.initialValues(1, startWith(model)).map((value, i) => value + 0.05 * Math.sin(i));
    await tuner.save(values, folder, { id: 'tiny', revision: 'local-1' });
    const adapter = await loadAdapter(model, folder);
    expect(maxDifference(logitsWith(model, { ids, rows: 1, columns: 12 }, { adapter: adapter.hook }), logitsWith(model, { ids, rows: 1, columns: 12 }))).toBeGreaterThan(1e-3);
    adapter.dispose();
  }
});

describe('wiring', () => {
  const LLAMA = { model_type: 'llama', vocab_size: 64, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true };
  const model = describeCausalLm(LLAMA);

  test.each([
    [{}, ['model.layers.0.self_attn', 'model.layers.0.mlp', 'model.layers.1.self_attn', 'model.layers.1.mlp']],
    [{ tuner_cfg: 'res_prefix' }, ['model.layers.0.self_attn', 'model.layers.1.self_attn']],
    [{ stem_modules: String.raw`model\.layers\.\d` }, ['model.layers.0', 'model.layers.1']],
    [{ stem_modules: ['model.layers.1.mlp', 'model.layers.0.mlp'] }, ['model.layers.1.mlp', 'model.layers.0.mlp']],
  ])('%j', (fields, paths) => {
    expect(planBranches(specOf(fields), model).map(({ site }) => site.path)).toEqual(paths);
  });

  test.each([
    [{ stem_modules: 'mlp' }, 'tuner.stem_modules: "mlp" matches no module of this llama model; it has model.layers.N.self_attn.o_proj, model.layers.N.self_attn'],
    [{ stem_modules: ['model.layers.7.mlp'] }, 'tuner.stem_modules: "model.layers.7.mlp" is no module'],
    [{ stem_modules: ['model.layers.0.mlp', 'model.layers.0.mlp'] }, 'is listed twice'],
    [{ stem_modules: String.raw`.*0\.self_attn`, tuner_cfg: 'res_prefix' }, 'res_prefix goes on the attention of every block'],
    [{ stem_modules: String.raw`.*mlp`, tuner_cfg: 'res_prefix' }, 'res_prefix goes on the attention of every block'],
    [{ tuner_cfg: { res_prefix: { prompt_length: 0 } } }, 'tuner.tuner_cfg: prompt_length must be a whole number from 1'],
    [{ tuner_cfg: { res_prefix: { length: 4 } } }, 'res_prefix has no option "length"'],
    [{ tuner_cfg: 'res_prompt' }, 'there is no "res_prompt" beside a module'],
    [{ tuner_cfg: null }, 'must be "res_adapter", "res_prefix"'],
    [{ tuner_cfg: { res_adapter: { adapter_length: [4, 4, 4] } } }, 'adapter_length lists 3 blocks, there are 4'],
    [{ use_bypass: true }, 'tuner.use_bypass: true is the tuner {"kind": "restuning-bypass"}'],
    [{ dims: 8 }, 'tuner.dims: is not a field of ResTuning; the fields are stem_modules'],
  ])('%j is refused', (fields, message) => {
    expect(() => planBranches(specOf(fields), model)).toThrow(message);
  });
});

test('a folder whose configuration says something else is refused', async () => {
  using model = await openBase();
  const changed = async (change: Record<string, unknown>) => {
    const folder = await mkdtemp(join(work, 'changed-'));
    await cp(join(FIXTURES, 'prefix'), folder, { recursive: true });
    const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8')) as object;
    await writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...change }));
    return folder;
  };
  await expect(loadAdapter(model, await changed({ tuner_cfg: { res_prefix: { prompt_length: 4 } } }))).rejects.toThrow('"model.layers.0.self_attn.restuner_default.prefix_k" is [1, 2, 5, 8] in the file and [1, 2, 4, 8] for this model');
  await expect(loadAdapter(model, await changed({ tuner_cfg: 'res_adapter' }))).rejects.toThrow('8 tensors are missing: model.layers.0.self_attn.restuner_default.ln1.weight');
});

function readGolden(name: string) {
  const path = join(FIXTURES, name, 'golden.safetensors');
  const bytes = (key: string) => {
    using file = SafetensorsFile.open(path);
    return file.read(key).slice().buffer;
  };
  return { floats: (key: string) => new Float32Array(bytes(key)), integers: (key: string) => new Int32Array(bytes(key)) };
}

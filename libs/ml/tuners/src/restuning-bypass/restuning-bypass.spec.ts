/**
 * ResTuning-Bypass: the golden numbers of its definition, SWIFT's own classes (fixture of `tools/golden/restuning_fixture.py`), wiring, files and refusals.
 * Ten steps against SWIFT are in ml/training.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { describeCausalLm, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { gradients, openDevice, selectRows, type Device, type Tensor } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec, type Tuner } from '..';
import { largest, logitsWith, maxDifference, parametersOf, startWith, trainingPass } from '../testing';
import { runBypass } from './bypass-tuner';
import { bypassSlots } from './slots';
import type { BypassSpec } from './spec';
import { wireBypass } from './wiring';

jest.setTimeout(60_000);

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const BASE = join(libraries, 'models', 'fixtures', 'tied');
const FIXTURES = join(libraries, 'tuners', 'fixtures', 'swift-restuning');
const CASES = ['plain', 'mixed'] as const;
const [rows, columns] = [2, 24];

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'bypass-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

const readConfig = async (folder: string): Promise<Record<string, unknown>> => JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;

async function openBase(backend: 'tensorflow' | 'wasm', computeDtype: 'f32' | 'bf16' = 'f32', folder = BASE): Promise<CausalLm> {
  return loadCausalLm(await openDevice({ backend }), { folder, config: await readConfig(folder), computeDtype });
}

const specOf = (fields: Record<string, unknown> = {}): BypassSpec => parseTunerSpec({ kind: 'restuning-bypass', ...fields }) as BypassSpec;

/** Element j of parameter k, and of an input c, as the definition gives them. */
const sines = (count: number, k: number) => Float32Array.from({ length: count }, (_, j) => 0.5 * Math.sin(0.7 * j + k));
const cosines = (c: number) => Float32Array.from({ length: 8 }, (_, j) => Math.cos(0.3 * j + c));

test('the golden numbers: two blocks of width 4 and length 2, two tokens', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  const model = { ...describeCausalLm(await readConfig(BASE)), hiddenSize: 4 };
  const spec = specOf({ tuner_cfg: { lateral_cfg: { res_adapter: { adapter_length: 2 } }, vertical_cfg: { res_adapter: { adapter_length: 2 } } }, bypass_init: null });
  const wiring = wireBypass(spec, model);
  const slots = bypassSlots(wiring, 'default');
  const sorted = slots.map(({ name }) => name).sort();
  device.scope(() => {
    const values = slots.map(({ name, shape }) => device.tensor(sines(shape.reduce((product, size) => product * size, 1), sorted.indexOf(name)), shape, 'f32'));
    const stems = [0, 1, 2].map((c) => device.tensor(cosines(c), [2, 4], 'f32'));
    const got = device.readFloats(runBypass(wiring, stems, values));
    expect(maxDifference(got, [1.568221, 0.268454, -0.173647, -0.406873, -1.683157, -2.38069, -1.31522, -1.129626])).toBeLessThan(2e-6);
  });
});

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  let device: Device;
  let model: CausalLm;
  beforeAll(async () => {
    model = await openBase(backend);
    device = model.device;
  });
  afterAll(() => model[Symbol.dispose]());

  test.each(CASES)('%s: a folder of SWIFT gives its logits, loss and every gradient', async (name) => {
    const golden = readGolden(name);
    const adapter = await loadAdapter(model, join(FIXTURES, name));
    expect(adapter.notices).toEqual([]);
    const batch = { ids: golden.integers('ids'), rows, columns };
    expect(maxDifference(logitsWith(model, batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    expect(maxDifference(logitsWith(model, batch), golden.floats('logits'))).toBeGreaterThan(0.1);
    const outputRows = Int32Array.from(Array(rows * columns).keys()).filter((_, i) => (golden.integers('labels')[i + 1] ?? -100) !== -100 && (i + 1) % columns !== 0);
    for (const options of [{}, { recomputeBlocks: true }, { outputRows }]) {
      const { loss, gradients: got } = trainingPass(model, adapter.tuner, adapter.values, batch, golden.integers('labels'), options);
      expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(2e-5);
      adapter.tuner.parameters.forEach((parameter, index) => {
        const wanted = golden.floats(`grad.${parameter.name}`);
        expect(maxDifference(got[index] ?? [], wanted)).toBeLessThan(1e-5 + 1e-4 * largest(wanted));
        expect(largest(wanted)).toBeGreaterThan(1e-5);
      });
    }
    adapter.dispose();
  });

  test.each(CASES)('%s: saved and read again it is the same, under the names and shapes SWIFT wrote', async (name) => {
    const [theirs, ours] = [join(FIXTURES, name), join(work, `${backend}-${name}`)];
    const adapter = await loadAdapter(model, theirs);
    await adapter.tuner.save(adapter.values, ours, { id: 'tiny/tied', revision: 'local-1' });
    const again = await loadAdapter(model, ours);
    expect(again.values).toEqual(adapter.values);
    const batch = { ids: readGolden(name).integers('ids'), rows, columns };
    expect(logitsWith(model, batch, { adapter: again.hook })).toEqual(logitsWith(model, batch, { adapter: adapter.hook }));
    again.dispose();
    adapter.dispose();
    using a = SafetensorsFile.open(join(theirs, 'adapter_model.safetensors'));
    using b = SafetensorsFile.open(join(ours, 'adapter_model.safetensors'));
    expect(new Map(b.tensors)).toEqual(new Map([...a.tensors].map(([tensor]) => [tensor, b.entry(tensor)])));
    for (const [tensor, { shape, dtype }] of a.tensors) {
      expect([b.entry(tensor).shape, b.entry(tensor).dtype]).toEqual([shape, dtype]);
      expect(Buffer.from(b.read(tensor)).equals(a.read(tensor))).toBe(true);
    }
    const [wrote, given] = await Promise.all([ours, theirs].map(async (folder) => JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8')) as Record<string, unknown>));
    expect(Object.keys(wrote ?? {}).sort()).toEqual(Object.keys(given ?? {}).sort());
    expect(wrote?.['tuner_cfg']).toEqual(given?.['tuner_cfg']);
  });

  test.each([{}, { stem_stride: 2 }, { tuner_cfg: { lateral_cfg: 'res_adapter', vertical_cfg: null } }])('%j starts at the base, and every path can open', (fields) => {
    const { ids, labels } = text();
    const batch = { ids, rows, columns };
    const tuner = createTuner(parseTunerSpec({ kind: 'restuning-bypass', ...fields }), model);
    const values = tuner.initialValues(5, startWith(model));
    device.scope(() => {
      const hook = tuner.bind(model, parametersOf(device, tuner, values), null);
      expect(maxDifference(logitsWith(model, batch, { adapter: hook }), logitsWith(model, batch))).toBe(0);
    });
    const { gradients: got } = trainingPass(model, tuner, values, batch, labels);
    const last = tuner.parameters.findLastIndex(({ name }) => name.endsWith('.carry'));
    expect(largest(got[last] ?? [])).toBeGreaterThan(1e-6);
    // With all paths open every parameter counts.
    const open = values.map((value, i) => value + 0.1 * Math.sin(i));
    const opened = trainingPass(model, tuner, open, batch, labels).gradients;
    tuner.parameters.forEach((_, index) => expect(largest(opened[index] ?? [])).toBeGreaterThan(0));
  });

  test('nothing is left on the device; gradients do not enter the blocks', async () => {
    const { ids, labels } = text();
    const tuner = createTuner(parseTunerSpec({ kind: 'restuning-bypass' }), model);
    const values = tuner.initialValues(1, startWith(model));
    const pass = () => trainingPass(model, tuner, values, { ids, rows, columns }, labels);
    pass();
    const count = () => device.memory.liveHandles - device.cachedScalars;
    const before = count();
    pass();
    (await loadAdapter(model, join(FIXTURES, 'plain'))).dispose();
    expect(count()).toBe(before);
    device.scope(() => {
      const parameters = parametersOf(device, tuner, values);
      const { bypass } = tuner.bind(model, parameters, null);
      let kept = 0;
      gradients(device, parameters, () => {
        const start = count();
        const stems = model.stems({ ids, rows, columns }, bypass?.states ?? []);
        kept = count() - start - stems.length;
        const picked = selectRows(bypass?.run(stems) as Tensor, Int32Array.of(0));
        return { loss: device.primitives.sumAll(picked) };
      });
      // Neither a block's activations nor anything the tape would hold for it.
      expect(kept).toBe(0);
    });
  });
});

test('bf16: gradients stay near those of SWIFT in f32', async () => {
  using model = await openBase('tensorflow', 'bf16');
  const golden = readGolden('plain');
  const adapter = await loadAdapter(model, join(FIXTURES, 'plain'));
  const got = trainingPass(model, adapter.tuner, adapter.values, { ids: golden.integers('ids'), rows, columns }, golden.integers('labels'));
  expect(Math.abs(got.loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(0.05);
  adapter.tuner.parameters.forEach((parameter, index) => {
    const wanted = golden.floats(`grad.${parameter.name}`);
    expect(maxDifference(got.gradients[index] ?? [], wanted)).toBeLessThan(0.15 * largest(wanted) + 1e-4);
  });
  adapter.dispose();
});

test('gpt2: its blocks and its final norm have other names', async () => {
  using model = await openBase('tensorflow', 'f32', join(libraries, 'models', 'fixtures', 'gpt2'));
  const tuner = createTuner(specOf(), model);
  const folder = join(work, 'gpt2');
  const values = tuner.initialValues(1, startWith(model)).map((value, i) => value + 0.05 * Math.sin(i));
  await tuner.save(values, folder, { id: 'tiny/gpt2', revision: 'local-1' });
  expect(JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'))).toMatchObject({ root_modules: 'transformer.h.0', target_modules: 'transformer.ln_f', bypass_init: 'identity', stem_modules: expect.arrayContaining(['transformer.h.1']) as unknown });
  const again = await loadAdapter(model, folder);
  expect(again.values).toEqual(values);
  again.dispose();
});

describe('wiring', () => {
  const LLAMA = { model_type: 'llama', vocab_size: 64, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 12, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true };
  const model = describeCausalLm(LLAMA);

  test.each([
    [{}, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
    [{ stem_stride: 5 }, 0, [2, 7, 12]],
    [{ root_modules: 'model.layers.1', root_modules_hook: 'output', stem_modules: String.raw`model\.layers\.(3|11)` }, 2, [4, 12]],
    [{ stem_modules: ['model.layers.11', 'model.layers.2'], stem_modules_hook: 'input', bypass_init: null }, 11, [11, 2]],
    // The whole path must match: not 10 and 11.
    [{ stem_modules: 'model.layers.1', bypass_init: null }, 1, [2]],
    [{ target_modules: String.raw`model\.layers\.\d+`, target_modules_hook: 'output' }, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
  ])('%j', (fields, root, stems) => {
    const wiring = wireBypass(specOf(fields), model);
    expect([wiring.root, wiring.stems, wiring.names.target]).toEqual([root, stems, 'model.norm']);
    expect(wiring.states).toEqual([...new Set([root, ...stems])].sort((a, b) => a - b));
  });

  test('parameters are counted as the definition says: D * 2 * (2 d h + h + d), and a factor per block', () => {
    const count = (tuner: Tuner) => tuner.parameterCount;
    expect(count(createTuner(specOf({ bypass_init: null }), model))).toBe(12 * 2 * (2 * 8 * 32 + 32 + 8));
    expect(count(createTuner(specOf(), model))).toBe(12 * (2 * (2 * 8 * 32 + 32 + 8) + 1));
  });

  test.each([
    [{ dims: 9 }, 'tuner.dims: 9 is not the width'],
    [{ dims: [8, 8] }, 'tuner.dims: lists 2 blocks, the bypass has 12'],
    [{ stem_modules: 'model.layers.*' }, 'tuner.stem_modules: "model.layers.*" also matches "model.layers"'],
    [{ stem_modules: ['layers.1'] }, 'tuner.stem_modules: "layers.1" is no block'],
    [{ stem_modules: ['model.layers.1', 'model.layers.1'] }, 'is listed twice'],
    [{ stem_modules: 'none' }, 'matches no block of this llama model; its blocks are "model.layers.0" to "model.layers.11"'],
    [{ stem_modules: 'model.layers.3' }, 'tuner.bypass_init: "identity" starts at the base only where'],
    [{ root_modules: 'model.*' }, 'tuner.root_modules: "model.*" matches "model" first'],
    [{ target_modules: 'lm_head' }, 'the input of "lm_head" cannot be replaced'],
    [{ target_hidden_pos: 1 }, 'tuner.target_hidden_pos: 1 is not the hidden state'],
    [{ tuner_cfg: null }, 'tuner.tuner_cfg: tuner_cfg must be a name'],
    [{ tuner_cfg: 'res_group_adapter' }, 'groups the channels of images'],
    [{ tuner_cfg: { lateral_cfg: 'res_adapter', aux_cfg: 'upsample' } }, 'aux_cfg enlarges images'],
    [{ tuner_cfg: { res_adapter: {} } }, '"res_adapter" stands where lateral_cfg and vertical_cfg are expected'],
    [{ tuner_cfg: { lateral_cfg: 'zero', vertical_cfg: 'zero' } }, 'nothing is left of the input'],
    [{ tuner_cfg: 'identity', bypass_init: null }, 'leaves nothing to train'],
    [{ tuner_cfg: { lateral_cfg: { res_adapter: { adapter_length: [1, 2] } }, vertical_cfg: null } }, 'adapter_length lists 2 blocks, there are 12'],
    [{ tuner_cfg: { lateral_cfg: { res_adapter: { adapter_weight: 'gate' } }, vertical_cfg: null } }, '"gate" is one number from all positions'],
    [{ tuner_cfg: { lateral_cfg: { res_adapter: { adapter_weight: 'scalar_x' } }, vertical_cfg: null } }, 'adapter_weight must be null'],
    [{ use_upsample: true }, 'tuner.use_upsample: enlarges images'],
    [{ upsample_out_channels: [8] }, 'tuner.upsample_out_channels: is for images'],
    [{ use_bypass: false }, 'is the tuner {"kind": "restuning"}'],
    [{ bypass_mix: 'gate', bypass_init: 'identity' }, 'exclude each other'],
    [{ rank: 8 }, 'tuner.rank: is not a field of ResTuning-Bypass; the fields are dims'],
  ])('%j is refused', (fields, message) => {
    expect(() => wireBypass(specOf(fields), model)).toThrow(message);
  });

  test('a learned gate mixes: λ Lat + (1 - λ) Ver', async () => {
    const device = await openDevice({ backend: 'tensorflow' });
    const wiring = wireBypass(specOf({ tuner_cfg: 'identity', stem_modules: 'model.layers.11', bypass_mix: 'gate' }), model);
    device.scope(() => {
      const stems = Array.from({ length: 13 }, (_, state) => (wiring.states.includes(state) ? device.tensor(Float32Array.of(state, 1), [1, 2], 'f32') : null));
      const mixed = (gate: number) => device.readFloats(runBypass(wiring, stems, [device.tensor(Float32Array.of(gate), [], 'f32')]));
      expect(maxDifference(mixed(0), [11.5, 1])).toBeLessThan(1e-6);
      expect(maxDifference(mixed(1), [11 + 1 / (1 + Math.exp(-1)), 1])).toBeLessThan(1e-6);
    });
  });
});

describe('folders that do not fit are refused', () => {
  let model: CausalLm;
  beforeAll(async () => {
    model = await openBase('tensorflow');
  });
  afterAll(() => model[Symbol.dispose]());

  test.each([
    [{ use_upsample: true }, 'adapter_config.json does not fit this model: use_upsample: enlarges images'],
    [{ dims: 64 }, 'dims: 64 is not the width'],
    [{ stem_modules: 'model.layers.0' }, '8 of its tensors have no place in this model: restuning_default.bypass_blocks.1.'],
    [{ bypass_mix: 'gate' }, '2 tensors are missing: restuning_default.bypass_blocks.0.mix'],
    [{ tuner_cfg: { lateral_cfg: { res_adapter: { adapter_length: 16 } }, vertical_cfg: 'res_adapter' } }, 'it was made for another base model, or its configuration was changed'],
    [{ model_key_mapping: { a: 'b' } }, 'model_key_mapping'],
  ])('%j', async (change, message) => {
    const folder = await mkdtemp(join(work, 'changed-'));
    await cp(join(FIXTURES, 'plain'), folder, { recursive: true });
    const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8')) as object;
    await writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...change }));
    await expect(loadAdapter(model, folder)).rejects.toThrow(message);
  });
});

function text(): { ids: Int32Array; labels: Int32Array } {
  const ids = Int32Array.from({ length: rows * columns }, (_, i) => (i * 7 + (i >> 3)) % 64);
  return { ids, labels: ids.map((id, i) => (i % 3 === 0 ? -100 : id)) };
}

function readGolden(name: string) {
  const path = join(FIXTURES, name, 'golden.safetensors');
  const bytes = (key: string) => {
    using file = SafetensorsFile.open(path);
    return file.read(key).slice().buffer;
  };
  return { floats: (key: string) => new Float32Array(bytes(key)), integers: (key: string) => new Int32Array(bytes(key)) };
}

/** LoRA against PEFT (fixture of `tools/golden/lora_fixture.py`): logits, loss, every gradient; then files, dropout, recomputation and refusals. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadCausalLm, type CausalLm, type ForwardOptions } from '@tunefleet/ml-models';
import { gradients, headCrossEntropy, multiplyForward, openDevice, type Device } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec, type LoadedAdapter, type ParameterInfo, type Tuner } from '..';
import { startWith } from '../testing';
import { transposed } from './parameters';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const BASE = join(libraries, 'models', 'fixtures', 'tied');
const ADAPTER = join(libraries, 'tuners', 'fixtures', 'peft-lora');
const [rows, columns] = [2, 24];
const golden = readGolden();

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'lora-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

async function openBase(backend: 'tensorflow' | 'wasm', dtype: 'f32' | 'bf16' = 'f32'): Promise<CausalLm> {
  const config: unknown = JSON.parse(await readFile(join(BASE, 'config.json'), 'utf8'));
  return loadCausalLm(await openDevice({ backend }), { folder: BASE, config, computeDtype: dtype });
}

describe.each(['tensorflow', 'wasm'] as const)('LoRA on %s', (backend) => {
  let device: Device;
  let model: CausalLm;
  let adapter: LoadedAdapter;
  beforeAll(async () => {
    model = await openBase(backend);
    device = model.device;
    adapter = await loadAdapter(model, ADAPTER);
  });
  afterAll(() => {
    adapter.dispose();
    model[Symbol.dispose]();
  });

  test('an adapter written by PEFT gives the logits of PEFT', () => {
    expect(maxDifference(logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    expect(maxDifference(logits(model), golden.floats('logits'))).toBeGreaterThan(0.1);
  });

  test.each([false, true])('loss and every gradient are those of PEFT, recomputeBlocks %p', (recomputeBlocks) => {
    const { loss, gradients: got } = train(model, adapter.tuner, adapter.values, { recomputeBlocks });
    expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(1e-5);
    expect(adapter.tuner.parameters).toHaveLength(2 * 2 * 7);
    adapter.tuner.parameters.forEach((parameter, index) => {
      const wanted = goldenGradient(parameter);
      expect(maxDifference(got[index] ?? [], wanted)).toBeLessThan(1e-5 + 1e-4 * largest(wanted));
      expect(largest(wanted)).toBeGreaterThan(1e-4);
    });
  });

  test('saved and read again it is the same, under the names and shapes PEFT wrote', async () => {
    const folder = join(work, backend);
    await adapter.tuner.save(adapter.values, folder, { id: 'tiny/tied', revision: 'local-1' });
    const again = await loadAdapter(model, folder);
    expect(again.values).toEqual(adapter.values);
    expect(logits(model, { adapter: again.hook })).toEqual(logits(model, { adapter: adapter.hook }));
    again.dispose();
    using theirs = SafetensorsFile.open(join(ADAPTER, 'adapter_model.safetensors'));
    using ours = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
    expect(new Map(ours.tensors)).toEqual(new Map([...theirs.tensors].map(([name]) => [name, ours.entry(name)])));
    for (const name of theirs.tensors.keys()) expect(Buffer.from(ours.read(name)).equals(theirs.read(name))).toBe(true);
  });

  test('a fresh adapter changes nothing', () => {
    const tuner = createTuner(parseTunerSpec({ kind: 'lora', r: 4, target_modules: 'all-linear' }), model);
    device.scope(() => {
      const hook = tuner.bind(model, parametersOf(device, tuner, tuner.initialValues(5, startWith(model))), null);
      expect(maxDifference(logits(model, { adapter: hook }), logits(model))).toBe(0);
    });
  });

  test('dropout is a function of its key, of expectation one, and the same when blocks are recomputed', () => {
    const spec = parseTunerSpec({ kind: 'lora', r: 4, target_modules: ['v_proj', 'down_proj'], lora_dropout: 0.3, init_lora_weights: false });
    const tuner = createTuner(spec, model);
    const values = tuner.initialValues(1, startWith(model));
    const [a, again, other] = [[7, 1], [7, 1], [7, 2]].map(([seed = 0, counter = 0]) => train(model, tuner, values, { dropout: [seed, counter] }));
    expect(again).toEqual(a);
    expect(other?.loss).not.toBe(a?.loss);
    const recomputed = train(model, tuner, values, { dropout: [7, 1], recomputeBlocks: true });
    expect(recomputed.loss).toBe(a?.loss);
    recomputed.gradients.forEach((gradient, index) => expect(maxDifference(gradient, a?.gradients[index] ?? [])).toBeLessThan(1e-6));
    const none = train(model, tuner, values, {}).loss;
    const mean = Array.from({ length: 8 }, (_, counter) => train(model, tuner, values, { dropout: [3, counter] }).loss).reduce((sum, loss) => sum + loss / 8, 0);
    expect(Math.abs(mean - none)).toBeLessThan(0.2 * none);
  });

  test('nothing is left on the device', async () => {
    train(model, adapter.tuner, adapter.values, {});
    const count = () => device.memory.liveHandles - device.cachedScalars;
    const before = count();
    train(model, adapter.tuner, adapter.values, {});
    train(model, adapter.tuner, adapter.values, { recomputeBlocks: true });
    logits(model, { adapter: adapter.hook });
    (await loadAdapter(model, ADAPTER)).dispose();
    expect(count()).toBe(before);
  });
});

test('bf16: logits and gradients stay close to PEFT in f32', async () => {
  using model = await openBase('tensorflow', 'bf16');
  const adapter = await loadAdapter(model, ADAPTER);
  expect(maxDifference(logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(0.25);
  const got = train(model, adapter.tuner, adapter.values, {});
  adapter.tuner.parameters.forEach((parameter, index) => {
    const wanted = goldenGradient(parameter);
    expect(maxDifference(got.gradients[index] ?? [], wanted)).toBeLessThan(0.15 * largest(wanted));
  });
  adapter.dispose();
});

describe('adapters that do not fit are refused', () => {
  let model: CausalLm;
  beforeAll(async () => {
    model = await openBase('tensorflow');
  });
  afterAll(() => model[Symbol.dispose]());

  const withConfig = async (change: Record<string, unknown>): Promise<string> => {
    const folder = await mkdtemp(join(work, 'changed-'));
    await cp(ADAPTER, folder, { recursive: true });
    const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8')) as object;
    await writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...change }));
    return folder;
  };

  test.each([
    [{ use_dora: true }, 'it has use_dora, but "model.layers.0.self_attn.q_proj.lora_magnitude_vector" is not a vector of 32 numbers'],
    [{ lora_bias: true }, 'it has lora_bias, but'],
    [{ target_parameters: ['x'] }, 'target_parameters = ["x"], which is not supported yet'],
    [{ init_lora_weights: 'pissa' }, 'changes the base weights'],
  ])('%j', async (change, message) => {
    await expect(loadAdapter(model, await withConfig(change))).rejects.toThrow(message);
  });

  test('other shapes, other names', async () => {
    const wider = { ...model, modelType: 'llama', computeDtype: 'f32' as const, projections: model.projections.map((each) => ({ ...each, inSize: 2 * each.inSize })) };
    await expect(loadAdapter(wider, ADAPTER)).rejects.toThrow('"model.layers.0.self_attn.q_proj" maps 64 to 32 in this model, but the adapter maps 32 to 32; it was made for another base model (tiny/tied)');
    const shallower = { ...wider, projections: model.projections.slice(0, 7) };
    await expect(loadAdapter(shallower, ADAPTER)).rejects.toThrow('14 of its tensors belong to no linear map');
  });
});

function readGolden() {
  const path = join(ADAPTER, 'golden.safetensors');
  const bytes = (name: string) => {
    using file = SafetensorsFile.open(path);
    return file.read(name).slice().buffer;
  };
  return { floats: (name: string) => new Float32Array(bytes(name)), integers: (name: string) => new Int32Array(bytes(name)) };
}

/** As the tuner trains the parameter: B turned. */
function goldenGradient({ name, shape: [rank = 0, size = 0] }: ParameterInfo): Float32Array {
  const given = golden.floats(`grad.${name}`);
  return name.includes('lora_B') ? transposed(given, size, rank) : given;
}

function logits(model: CausalLm, options: ForwardOptions = {}): Float32Array {
  return model.device.scope(() => model.device.readFloats(multiplyForward(model.forward({ ids: golden.integers('ids'), rows, columns }, options), model.head)));
}

function parametersOf(device: Device, tuner: Tuner, values: Float32Array) {
  let at = 0;
  return tuner.parameters.map(({ shape }) => {
    const size = shape.reduce((product, each) => product * each, 1);
    return device.tensor(values.slice(at, (at += size)), shape, 'f32');
  });
}

/** Mean loss over the labelled tokens, each predicted from the one before, and the gradient of every parameter. */
function train(model: CausalLm, tuner: Tuner, values: Float32Array, options: { recomputeBlocks?: boolean; dropout?: readonly [number, number] }) {
  const { device } = model;
  const given = golden.integers('labels');
  const labels = Int32Array.from(given, (_, i) => (i % columns === columns - 1 ? -100 : (given[i + 1] ?? -100)));
  const counted = labels.reduce((sum, label) => sum + (label === -100 ? 0 : 1), 0);
  return device.scope(() => {
    const parameters = parametersOf(device, tuner, values);
    const adapter = tuner.bind(model, parameters, options.dropout ?? null);
    const { result, gradients: grads } = gradients(device, parameters, () => {
      const hidden = model.forward({ ids: golden.integers('ids'), rows, columns }, { adapter, recomputeBlocks: options.recomputeBlocks ?? false });
      return headCrossEntropy(hidden, model.head, labels, { scale: 1 / counted });
    });
    return { loss: device.readFloats(result.loss)[0] ?? NaN, gradients: grads.map((gradient) => (gradient ? device.readFloats(gradient) : new Float32Array())) };
  });
}

function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(difference <= most)) most = difference;
  }
  return most;
}

function largest(values: Float32Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

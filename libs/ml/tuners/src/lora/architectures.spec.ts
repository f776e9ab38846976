/**
 * LoRA on every decoder against PEFT (fixtures of `tools/golden/decoder_fixtures.py`): the maps that `all-linear` means, logits, loss, every gradient,
 * and the file. The same adapter trains in bf16.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { architectureSpecs, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { gradients, headCrossEntropy, headLogits, openDevice, type FloatDType } from '@tunefleet/ml-tensor';
import { loadAdapter, matchProjections, tunerSpecs, type LoadedAdapter } from '..';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const [rows, columns] = [2, 24];
const TYPES = Object.keys(architectureSpecs).filter((type) => type !== 'llama');

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'lora-architectures-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

describe.each(TYPES)('%s', (type) => {
  const golden = readGolden(adapterFolder(type));

  test.each([
    ['tensorflow', 'f32'],
    ['wasm', 'f32'],
  ] as const)('logits, loss and every gradient are those of PEFT on %s', async (backend, dtype) => {
    using model = await openBase(type, backend, dtype);
    const adapter = await loadAdapter(model, adapterFolder(type));
    expect(maxDifference(logits(model, adapter), golden.floats('logits'))).toBeLessThan(1e-4);
    for (const recomputeBlocks of [false, true]) {
      const { loss, gradients: got } = train(model, adapter, golden, recomputeBlocks);
      expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(1e-5);
      adapter.tuner.parameters.forEach(({ name }, index) => {
        const wanted = golden.floats(`grad.${name}`);
        expect(maxDifference(inFileOrder(got[index] ?? new Float32Array(), adapter.tuner.parameters[index]?.shape ?? [], name), wanted)).toBeLessThan(1e-5 + 2e-4 * largest(wanted));
        expect(largest(wanted)).toBeGreaterThan(1e-4);
      });
    }
    adapter.dispose();
  });

  test('all-linear means the maps that PEFT adapts; written again the file is the same', async () => {
    using model = await openBase(type, 'tensorflow', 'f32');
    const adapter = await loadAdapter(model, adapterFolder(type));
    const targets = matchProjections(tunerSpecs.lora.parse({ kind: 'lora', target_modules: 'all-linear' }), model).map(({ path }) => path);
    expect(adapter.tuner.parameters.map(({ name }) => name)).toEqual(targets.flatMap((path) => [`${path}.lora_A.weight`, `${path}.lora_B.weight`]));
    expect(matchProjections(tunerSpecs.lora.parse({ kind: 'lora' }), model).length).toBeGreaterThan(0);
    const folder = join(work, type);
    await adapter.tuner.save(adapter.values, folder, { id: `tiny/${type}`, revision: 'local-1' });
    using theirs = SafetensorsFile.open(join(adapterFolder(type), 'adapter_model.safetensors'));
    using ours = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
    expect([...ours.tensors.keys()].sort()).toEqual([...theirs.tensors.keys()].sort());
    for (const name of theirs.tensors.keys()) expect(Buffer.from(ours.read(name)).equals(theirs.read(name))).toBe(true);
    const flag = async (at: string) => (JSON.parse(await readFile(join(at, 'adapter_config.json'), 'utf8')) as { fan_in_fan_out: boolean }).fan_in_fan_out;
    expect(await flag(folder)).toBe(await flag(adapterFolder(type)));
    adapter.dispose();
  });

  test('a training step in bf16, over bf16 weights, leaves nothing behind and stays close', async () => {
    using model = await openBase(type, 'tensorflow', 'bf16');
    const adapter = await loadAdapter(model, adapterFolder(type));
    train(model, adapter, golden, false);
    const handles = () => model.device.memory.liveHandles - model.device.cachedScalars;
    const before = handles();
    const { loss } = train(model, adapter, golden, false);
    expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(0.1);
    expect(handles()).toBe(before);
    adapter.dispose();
  });
});

function adapterFolder(type: string): string {
  return join(libraries, 'tuners', 'fixtures', 'architectures', type);
}

async function openBase(type: string, backend: 'tensorflow' | 'wasm', computeDtype: FloatDType): Promise<CausalLm> {
  const folder = join(libraries, 'models', 'fixtures', type);
  const config: unknown = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
  return loadCausalLm(await openDevice({ backend }), { folder, config, computeDtype });
}

interface Golden {
  floats(name: string): Float32Array;
  integers(name: string): Int32Array;
}

function readGolden(folder: string): Golden {
  const bytes = (name: string) => {
    using file = SafetensorsFile.open(join(folder, 'golden.safetensors'));
    return file.read(name).slice().buffer;
  };
  return { floats: (name) => new Float32Array(bytes(name)), integers: (name) => new Int32Array(bytes(name)) };
}

function logits(model: CausalLm, { hook }: LoadedAdapter): Float32Array {
  const ids = readGolden(adapterFolder(model.modelType)).integers('ids');
  return model.device.scope(() => model.device.readFloats(headLogits(model.forward({ ids, rows, columns }, { adapter: hook }), model.head)));
}

/** Mean loss over the labelled tokens, each predicted from the one before, and the gradient of every parameter. */
function train(model: CausalLm, { tuner, values }: LoadedAdapter, golden: Golden, recomputeBlocks: boolean) {
  const { device } = model;
  const [ids, given] = [golden.integers('ids'), golden.integers('labels')];
  const labels = Int32Array.from(given, (_, i) => (i % columns === columns - 1 ? -100 : (given[i + 1] ?? -100)));
  const counted = labels.reduce((sum, label) => sum + (label === -100 ? 0 : 1), 0);
  return device.scope(() => {
    let at = 0;
    const parameters = tuner.parameters.map(({ shape }) => {
      const size = shape.reduce((product, each) => product * each, 1);
      return device.tensor(values.slice(at, (at += size)), shape, 'f32');
    });
    const adapter = tuner.bind(model, parameters, null);
    const { result, gradients: grads } = gradients(device, parameters, () =>
      headCrossEntropy(model.forward({ ids, rows, columns }, { adapter, recomputeBlocks }), model.head, labels, { scale: 1 / counted }),
    );
    return { loss: device.readFloats(result.loss)[0] ?? NaN, gradients: grads.map((gradient) => (gradient ? device.readFloats(gradient) : new Float32Array())) };
  });
}

/** B is trained turned; PEFT has it as [out, R]. */
function inFileOrder(values: Float32Array, [rank = 0, width = 0]: readonly number[], name: string): Float32Array {
  if (!name.endsWith('lora_B.weight')) return values;
  return Float32Array.from(values, (_, i) => values[(i % rank) * width + Math.floor(i / rank)] ?? NaN);
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

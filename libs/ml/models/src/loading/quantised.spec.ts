/** Linear maps in 4 bits: checkpoints of bitsandbytes against Transformers' logits, and models quantised here against the same weights dequantised on the host. */
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dequantiseFourBit, dequantiseScales, encodeSafetensors, FOUR_BIT_CODES, quantiseFourBit, quantiseScales, SafetensorsFile, type TensorInMemory } from '@tunefleet/ml-formats';
import { openDevice, type Device, type FrozenMatrix } from '@tunefleet/ml-tensor';
import type { Quantisation } from '../causal-lm';
import { floatsOf } from '../sources/stored-four-bit';
import { describeCausalLm } from '../specs';
import { goldenModel, logitsOf, maxDifference } from '../testing';
import { loadCausalLm } from './load-causal-lm';

const NF4: Quantisation = { type: 'nf4', doubleQuant: true };
let work: string;
let device: Device;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'quantised-'));
  device = await openDevice({ backend: 'tensorflow' });
});
afterAll(() => rm(work, { recursive: true, force: true }));

const stored = (folder: string): TensorInMemory[] => {
  using file = SafetensorsFile.open(join(folder, 'model.safetensors'));
  return [...file.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape, data: file.read(name) }));
};

describe.each(['tensorflow', 'wasm'] as const)('a checkpoint of bitsandbytes on %s', (backend) => {
  test.each(['nf4', 'fp4'])('%s: logits of Transformers', async (type) => {
    const golden = goldenModel(`bitsandbytes-${type}`);
    using model = await loadCausalLm(await openDevice({ backend }), { folder: golden.folder, config: golden.config, computeDtype: 'f32' });
    expect(maxDifference(logitsOf(model, { ids: golden.ids, rows: 2, columns: 12 }), golden.logits)).toBeLessThan(2e-5);
    const maps = model.projectionGroups.flatMap((group) => group.maps);
    expect(maps.every(({ weight }) => weight.quantised !== undefined)).toBe(true);
    expect(model.head.quantised).toBeUndefined();
  });
});

describe.each([['nf4 twice quantised', NF4], ['fp4', { type: 'fp4', doubleQuant: false }]] as const)('%s', (_name, quantisation) => {
  test.each(['tied', 'qwen2', 'gemma2', 'phi3', 'gpt2'])('%s computes what its dequantised weights compute', async (name) => {
    const golden = goldenModel(name);
    const maps = new Map(describeCausalLm(golden.config).projections.map((projection) => [`${projection.path}.weight`, projection]));
    const dequantised = stored(golden.folder).map((tensor): TensorInMemory => {
      const map = maps.get(tensor.name);
      if (!map) return tensor;
      const turned = map.fanInFanOut ?? false;
      const [rows, columns] = tensor.shape as [number, number];
      const values = turned ? transpose(floatsOf(tensor), rows, columns) : floatsOf(tensor);
      const weights = roundTrip(values, quantisation);
      return { ...tensor, dtype: 'F32', data: new Uint8Array((turned ? transpose(weights, columns, rows) : weights).buffer) };
    });
    const folder = await mkdtemp(join(work, 'dequantised-'));
    await writeFile(join(folder, 'model.safetensors'), encodeSafetensors(dequantised));
    const before = device.memory.liveHandles - device.cachedScalars;
    {
      using plain = await loadCausalLm(device, { folder, config: golden.config, computeDtype: 'f32' });
      using model = await loadCausalLm(device, { folder: golden.folder, config: golden.config, computeDtype: 'f32', quantisation });
      const batch = { ids: golden.ids, rows: 2, columns: 24 };
      expect(maxDifference(logitsOf(model, batch), logitsOf(plain, batch))).toBeLessThan(name === 'gpt2' ? 1e-5 : 1e-30);
      expect(maxDifference(logitsOf(model, batch), golden.logits)).toBeGreaterThan(1e-3);
      expect(model.weightBytes).toBeLessThan(plain.weightBytes);
    }
    expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  });
});

test('a quantised checkpoint is not quantised again, whatever is asked for', async () => {
  const golden = goldenModel('bitsandbytes-fp4');
  using model = await loadCausalLm(device, { folder: golden.folder, config: golden.config, computeDtype: 'f32', quantisation: NF4 });
  expect(maxDifference(logitsOf(model, { ids: golden.ids, rows: 2, columns: 12 }), golden.logits)).toBeLessThan(2e-5);
});

test('some of a stack in 4 bits, the rest not', async () => {
  const golden = goldenModel('bitsandbytes-nf4');
  const name = 'model.layers.0.self_attn.k_proj.weight';
  const kept = stored(golden.folder).filter((tensor) => !tensor.name.startsWith(name));
  const folder = await mkdtemp(join(work, 'mixed-'));
  const values = Float32Array.from({ length: 8 * 40 }, (_, i) => Math.sin(i) / 6);
  await writeFile(join(folder, 'model.safetensors'), encodeSafetensors([...kept, { name, dtype: 'F32', shape: [8, 40], data: new Uint8Array(values.buffer) }]));
  using model = await loadCausalLm(device, { folder, config: golden.config, computeDtype: 'f32' });
  const [qkv, output] = model.projectionGroups;
  expect(qkv?.maps[0]?.weight.quantised).toBeUndefined();
  expect(output?.maps[0]?.weight.quantised).toHaveLength(1);
  const { value, layout } = qkv?.maps[0]?.weight as FrozenMatrix;
  const rows = device.scope(() => device.readFloats(layout === 'outIn' ? value : device.primitives.transpose(value, [1, 0])));
  expect(rows.slice(40 * 40, 48 * 40)).toEqual(values);
});

test.each<readonly [string, (tensors: TensorInMemory[]) => TensorInMemory[], string]>([
  ['a missing part', (all) => all.filter(({ name }) => !name.endsWith('q_proj.weight.absmax')), '"model.layers.0.self_attn.q_proj.weight.absmax" is missing'],
  ['scales too few', (all) => all.map((tensor) => (tensor.name.endsWith('q_proj.weight.absmax') ? { ...tensor, shape: [1], data: tensor.data.slice(0, 1) } : tensor)), 'but 25 elements of U8 are needed'],
  ['a state that is not JSON', (all) => all.map((tensor) => (tensor.name.includes('quant_state') ? { ...tensor, data: tensor.data.map(() => 65) } : tensor)), 'its quant_state is not JSON'],
  ['a map that is not finite', (all) => all.map((tensor) => (tensor.name.endsWith('.quant_map') ? { ...tensor, data: tensor.data.map(() => 255) } : tensor)), 'quant_map" holds NaN'],
])('%s is refused', async (_name, damage, message) => {
  const golden = goldenModel('bitsandbytes-nf4');
  const folder = await mkdtemp(join(work, 'damaged-'));
  await cp(golden.folder, folder, { recursive: true });
  await writeFile(join(folder, 'model.safetensors'), encodeSafetensors(damage(stored(golden.folder))));
  const before = device.memory.liveHandles - device.cachedScalars;
  await expect(loadCausalLm(device, { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' })).rejects.toMatchObject({ code: 'incompatible_artifact', message: expect.stringContaining(message) });
  expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
});

function roundTrip(values: Float32Array, { type, doubleQuant }: Quantisation): Float32Array {
  const { packed, scales } = quantiseFourBit(values, type);
  return dequantiseFourBit({ packed, scales: doubleQuant ? dequantiseScales(quantiseScales(scales)) : scales }, FOUR_BIT_CODES[type], values.length);
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: values.length }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)] as number);
}

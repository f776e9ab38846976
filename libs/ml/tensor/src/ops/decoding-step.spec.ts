/** What decoding does in one op is, bit for bit, what the ops do that it stands for. */
import { uniformAt } from '@tunefleet/foundation';
import type { Device } from '../device';
import { openDevice } from '../open-device';
import type { Tensor } from '../tensor';
import { cachedAttention, canAttendInCache, singleQueryAttention, slotMask } from './attention/single-query';
import { frozenMatrix, fusedGated, fusedNormed, multiplyForward, quantisedMatrix, type FrozenMap, type FrozenMatrix } from './linear/frozen-matrix';
import { quantisedCase } from './linear/testing';
import { gradients } from '../tape/perform';
import { rmsNorm } from './rms-norm/rms-norm';
import { ropeTables } from './rope/rope';
import { rotaryHeads } from './rope/rotary-heads';
import { swiglu } from './swiglu/swiglu';

const EPSILON = 1e-5;
let device: Device;
beforeAll(async () => {
  device = await openDevice({ backend: 'tensorflow' });
  expect(device.fused).not.toBeNull();
});
afterEach(() => expect(device.memory.liveHandles).toBe(device.cachedScalars));

function random(shape: readonly number[], seed: number): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  return device.tensor(Float32Array.from({ length: count }, (_, i) => 2 * uniformAt(seed, 0, i) - 1), shape, 'f32');
}

type Kind = 'f32' | 'bf16' | '4-bit' | '4-bit with quantised scales';
const KINDS: readonly Kind[] = ['f32', 'bf16', '4-bit', '4-bit with quantised scales'];

function matrix(kind: Kind, outSize: number, inSize: number, seed: number): FrozenMatrix {
  if (kind === 'f32' || kind === 'bf16') return frozenMatrix(device, device.primitives.cast(random([outSize, inSize], seed), kind));
  const { weights } = quantisedCase(device, outSize, inSize, kind === '4-bit with quantised scales', 64, seed);
  return quantisedMatrix([weights]);
}

const bits = (x: Tensor | null): Float32Array => device.readFloats(x as Tensor).slice();
const same = (x: Tensor | null, y: Tensor): void => expect(bits(x)).toEqual(bits(y));

// One row, some, the most that are few; outputs that fill no group.
describe.each([[1, 64, 8], [3, 100, 13], [32, 70, 7]])('%i rows, %i inputs, %i outputs', (rows, inSize, outSize) => {
  test.each(KINDS)('a norm in front of a map, %s', (kind) => {
    device.scope(() => {
      const [x, weight] = [random([rows, inSize], 1), random([inSize], 2)];
      const map: FrozenMap = { weight: matrix(kind, outSize, inSize, 3), bias: null };
      same(fusedNormed(x, { weight, epsilon: EPSILON }, map), multiplyForward(rmsNorm(x, weight, EPSILON), map.weight));
      const bias = random([outSize], 4);
      same(fusedNormed(x, { weight, epsilon: EPSILON }, { ...map, bias }), device.primitives.add(multiplyForward(rmsNorm(x, weight, EPSILON), map.weight), bias));
    });
  });

  test.each(KINDS)('a gated activation of normed rows, %s', (kind) => {
    device.scope(() => {
      const [x, weight] = [random([rows, inSize], 1), random([inSize], 2)];
      const [gate, up] = [matrix(kind, outSize, inSize, 5), matrix(kind, outSize, inSize, 6)];
      const normed = rmsNorm(x, weight, EPSILON);
      same(fusedGated(x, { weight, epsilon: EPSILON }, { weight: gate, bias: null }, { weight: up, bias: null }), swiglu(multiplyForward(normed, gate), multiplyForward(normed, up)));
    });
  });
});

test('there is no such op for many rows, for maps of two kinds, with biases, or where a gradient is recorded', () => {
  device.scope(() => {
    const norm = { weight: random([64], 2), epsilon: EPSILON };
    const map = (kind: Kind, bias: Tensor | null = null): FrozenMap => ({ weight: matrix(kind, 8, 64, 3), bias });
    const [few, many] = [random([2, 64], 1), random([33, 64], 1)];
    expect(fusedNormed(many, norm, map('f32'))).toBeNull();
    expect(fusedGated(many, norm, map('f32'), map('f32'))).toBeNull();
    expect(fusedGated(few, norm, map('f32'), map('bf16'))).toBeNull();
    expect(fusedGated(few, norm, map('f32'), map('4-bit'))).toBeNull();
    expect(fusedGated(few, norm, map('4-bit with quantised scales'), map('4-bit'))).toBeNull();
    const twoParts = { weight: quantisedMatrix([quantisedCase(device, 4, 64, false).weights, quantisedCase(device, 4, 64, false).weights]), bias: null };
    for (const other of [map('f32'), map('4-bit'), twoParts]) expect([fusedGated(few, norm, twoParts, other), fusedGated(few, norm, other, twoParts)]).toEqual([null, null]);
    expect(fusedGated(few, norm, map('f32'), map('f32', random([8], 5)))).toBeNull();
    gradients(device, [few], () => {
      expect(fusedNormed(few, norm, map('f32'))).toBeNull();
      return { loss: device.primitives.sumAll(few) };
    });
  });
});

describe('attention in the cache', () => {
  const [K, H, D, SLOTS] = [2, 6, 12, 40];

  test.each([
    ['one row, every slot seen', [39], null, undefined],
    ['rows alike', [20, 20], null, undefined],
    ['rows of unlike length, capped scores', [3, 39, 12], 0.8, undefined],
    ['a window', [30, 17], null, 9],
  ] as const)('%s', (_name, lengths, softcap, window) => {
    device.scope(() => {
      const p = device.primitives;
      const [batch, options] = [lengths.length, { scale: 0.7, softcap }];
      const x = random([batch, (H + 2 * K) * D], 1);
      const alike = lengths.every((length) => length === lengths[0]);
      const positions = Int32Array.from(alike ? lengths.slice(0, 1) : lengths);
      const tables = ropeTables(device, { inverseFrequencies: Float64Array.from({ length: D / 2 }, (_, i) => 1 / 10 ** i), positions, rows: positions.length, columns: 1, dtype: 'f32' });
      const values = slotMask(Int32Array.from(lengths), SLOTS, window);
      const mask = values && device.tensor(values, [values.length / SLOTS, 1, 1, SLOTS], 'f32');
      const places = device.tensor(Int32Array.from({ length: batch * K }, (_, i) => i * SLOTS + (lengths[Math.floor(i / K)] as number)), [batch * K], 'i32');
      const cache = () => ({ k: random([batch, K, SLOTS, D], 2), v: random([batch, K, SLOTS, D], 3), places });

      const [own, wanted] = [cache(), cache()];
      const { q, k, v } = rotaryHeads(x, { batch, heads: H, keyValueHeads: K }, tables);
      for (const [whole, added] of [[wanted.k, k], [wanted.v, v]] as const) p.writeRows(p.reshape(whole, [-1, D]), places, p.reshape(added, [batch * K, D]));
      if (!canAttendInCache(x, tables)) throw new Error('this device has no attention in the cache');
      same(cachedAttention(x, tables, own, mask, options), singleQueryAttention(q, wanted.k, wanted.v, mask, options));
      same(own.k, wanted.k);
      same(own.v, wanted.v);
    });
  });

  test('a place outside the cache is refused and writes nothing', () => {
    device.scope(() => {
      const tables = ropeTables(device, { inverseFrequencies: Float64Array.of(1), positions: Int32Array.of(0), rows: 1, columns: 1, dtype: 'f32' });
      const cache = { k: random([1, 1, 4, 2], 2), v: random([1, 1, 4, 2], 3), places: device.tensor(Int32Array.of(4), [1], 'i32') };
      const [k, v] = [bits(cache.k), bits(cache.v)];
      if (!canAttendInCache(cache.k, tables)) throw new Error('this device has no attention in the cache');
      expect(() => cachedAttention(random([1, 6], 1), tables, cache, null)).toThrow(/one of the cache's slots/);
      expect([bits(cache.k), bits(cache.v)]).toEqual([k, v]);
    });
  });
});

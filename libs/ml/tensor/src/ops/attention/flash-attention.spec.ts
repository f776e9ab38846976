/** Attention as fused ops against attention composed of others: outputs and gradients, for every kind of mask, at sizes around those of a tile (96). */
import { uniformAt } from '@tunefleet/foundation';
import type { Device } from '../../device';
import { openDevice } from '../../open-device';
import { gradients, singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { attention } from './attention';
import { blockMask } from './block-mask';
import { branchMask, causalMask, paddingMask, segmentMask, type AttentionMask } from './masks';

interface Case {
  readonly batch?: number;
  readonly heads: readonly [queries: number, keys: number];
  readonly time: number;
  readonly keys?: number;
  readonly width: number;
  readonly mask?: AttentionMask;
  readonly softcap?: number;
  readonly scale?: number;
}

/** Segments or branches of some lengths, over and over. */
function runs(columns: number, lengths: readonly number[], from = 0): Int32Array {
  const numbers = lengths.flatMap((length, i) => new Array<number>(length).fill(from + i));
  return Int32Array.from({ length: columns }, (_, i) => from + Math.floor(i / numbers.length) * lengths.length + (numbers[i % numbers.length] as number) - from);
}

const twoRows = (a: Int32Array, b: Int32Array): Int32Array => Int32Array.of(...a, ...b);
const PLACES = Int32Array.from({ length: 300 }, (_, i) => (i % 150) + (i % 150 < 20 ? 0 : -Math.floor((i % 150) / 60) * 10));

const CASES: Readonly<Record<string, Case>> = {
  'every key': { heads: [4, 2], time: 70, width: 64 },
  'causal, one tile': { batch: 2, heads: [3, 1], time: 96, width: 64, mask: causalMask(96, 96) },
  'causal, many tiles': { heads: [3, 3], time: 200, width: 32, mask: causalMask(200, 200) },
  'causal, long': { heads: [2, 1], time: 1000, width: 16, mask: causalMask(1000, 1000) },
  'one query': { heads: [2, 1], time: 1, keys: 90, width: 16, mask: causalMask(1, 90, 89) },
  'behind earlier keys': { batch: 2, heads: [4, 2], time: 37, keys: 137, width: 80, mask: causalMask(37, 137, 100) },
  'more queries than keys': { heads: [2, 2], time: 200, keys: 97, width: 96, mask: causalMask(200, 97) },
  window: { heads: [2, 1], time: 190, width: 64, mask: causalMask(190, 190, 0, 50) },
  'window, capped': { heads: [2, 1], time: 190, width: 24, softcap: 0.7, scale: 1.5, mask: causalMask(190, 190, 0, 33) },
  capped: { heads: [2, 1], time: 70, width: 64, softcap: 30, mask: causalMask(70, 70) },
  segments: { batch: 2, heads: [4, 2], time: 170, width: 64, mask: segmentMask(twoRows(runs(170, [70, 9, 30]), runs(170, [3, 100])), { rows: 2, columns: 170 }) },
  'segments behind earlier keys, with a window': { batch: 2, heads: [2, 1], time: 130, keys: 150, width: 10, mask: segmentMask(twoRows(runs(130, [40]), runs(130, [7, 60])), { rows: 2, columns: 130, offset: 20, window: 25 }) },
  branches: { batch: 2, heads: [2, 1], time: 150, keys: 158, width: 64, mask: branchMask(twoRows(runs(150, [20, 50, 40, 40]), runs(150, [10, 90, 30, 20])), { rows: 2, columns: 150, offset: 8 }) },
  'branches with a window, capped': { batch: 2, heads: [2, 1], time: 150, keys: 158, width: 14, softcap: 2, mask: branchMask(twoRows(runs(150, [20, 50, 40, 40]), runs(150, [20, 40, 90])), { rows: 2, columns: 150, offset: 8, window: { size: 40, positions: PLACES } }) },
  'branches in turns': { heads: [2, 1], time: 90, width: 8, mask: branchMask(Int32Array.from({ length: 90 }, (_, i) => i % 3), { rows: 1, columns: 90, offset: 0 }) },
  padding: { batch: 3, heads: [2, 2], time: 100, width: 64, mask: paddingMask(Int32Array.of(1, 96, 99), 100) },
  'wide heads': { heads: [2, 1], time: 100, width: 256, mask: causalMask(100, 100) },
  'heads of 128': { heads: [2, 2], time: 66, width: 128, mask: causalMask(66, 66) },
  'heads of 2': { heads: [2, 1], time: 66, width: 2, mask: causalMask(66, 66) },
  'heads of 7': { heads: [2, 1], time: 102, width: 7, mask: causalMask(102, 102) },
};

const random = (shape: readonly number[], seed: number): Float32Array => Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => 4 * uniformAt(seed, 0, i) - 2);

/** The output, and gradients of q, k and v of its sum by random weights. */
function evaluate(device: Device, { batch = 1, heads: [H, K], time, keys = time, width, mask, softcap, scale }: Case): Float32Array[] {
  const p = device.primitives;
  return device.scope(() => {
    const shapes = [[batch, H, time, width], [batch, K, keys, width], [batch, K, keys, width], [batch, H, time, width]];
    const [q, k, v, weights] = shapes.map((shape, i) => device.tensor(random(shape, i + 1), shape, 'f32')) as [Tensor, Tensor, Tensor, Tensor];
    const given = mask ? blockMask(device, mask) : null;
    const { result, gradients: parts } = gradients(device, [q, k, v], () => {
      const y = attention(q, k, v, given, { ...(softcap === undefined ? {} : { softcap }), ...(scale === undefined ? {} : { scale }) });
      const loss = singleOutputOp(device, {
        name: 'project',
        inputs: [y],
        run: () => ({ outputs: [p.sumAll(p.mul(y, weights))], save: [weights] }),
        backward: ({ gradients: [g], saved: [w] }) => [g && w ? p.mul(w, g) : null],
      });
      return { loss, y };
    });
    return [result.y, ...parts].map((part) => device.readFloats(part as Tensor));
  });
}

/** The largest difference, by the largest value. */
function error(got: Float32Array, wanted: Float32Array): number {
  const most = wanted.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  return got.reduce((worst, value, i) => Math.max(worst, Number.isNaN(value) ? Infinity : Math.abs(value - (wanted[i] as number))), 0) / most;
}

describe('attention as fused ops', () => {
  let fused: Device;
  let composed: Device;
  beforeAll(async () => {
    fused = await openDevice({ backend: 'tensorflow' });
    composed = await openDevice({ backend: 'tensorflow', fused: false });
  });

  test.each(Object.entries(CASES))('%s', (_, given) => {
    const held = fused.memory.liveHandles - fused.cachedScalars;
    const got = evaluate(fused, given);
    evaluate(composed, given).forEach((wanted, part) => expect(error(got[part] as Float32Array, wanted)).toBeLessThan(1e-5));
    expect(evaluate(fused, given)).toEqual(got);
    expect(fused.memory.liveHandles - fused.cachedScalars).toBe(held);
  });

  test('scores far apart overflow nowhere', () => {
    const given: Case = { heads: [1, 1], time: 130, width: 16, scale: 60, mask: causalMask(130, 130) };
    for (const part of evaluate(fused, given)) expect(part.every(Number.isFinite)).toBe(true);
  });

  test('a query that sees nothing gives zeros, and no gradient', () => {
    const ranges = Int32Array.from({ length: 2 * 70 }, (_, i) => (i % 2 === 0 ? 0 : i < 20 ? 0 : 5));
    const [y, dq, dk, dv] = evaluate(fused, { heads: [1, 1], time: 70, width: 8, mask: { ranges, rows: 1, queries: 70, keys: 70 } }) as [Float32Array, Float32Array, Float32Array, Float32Array];
    expect([...y.subarray(0, 80), ...dq.subarray(0, 80), ...dk.subarray(40), ...dv.subarray(40)].every((value) => value === 0)).toBe(true);
    expect([...y.subarray(80), ...dq.subarray(80), ...dk.subarray(0, 40), ...dv.subarray(0, 40)].every((value) => Number.isFinite(value) && value !== 0)).toBe(true);
  });
});

/** The forms of ops that decoding uses against the general ones. */
import { uniformAt } from '@tunefleet/foundation';
import type { Tensor } from '../../tensor';
import { TEST_BACKENDS, testDevice } from '../../testing';
import { mergeHeads } from '../layout/heads';
import { rope, ropeTables } from '../rope/rope';
import { attention } from './attention';
import { blockMask } from './block-mask';
import { causalMask } from './masks';
import { singleQueryAttention, slotMask } from './single-query';

const [B, H, K, S, D] = [2, 6, 2, 9, 4];

describe.each(TEST_BACKENDS)('on %s', (backend) => {
  const random = (shape: readonly number[], seed: number): Float32Array => Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => 2 * uniformAt(seed, 0, i) - 1);

  test.each([
    [null, Infinity],
    [3, 4],
  ])('one query over slots is the last query of causal attention, softcap %p, window %p', async (softcap, window) => {
    const device = await testDevice(backend);
    device.scope(() => {
      const tensor = (shape: readonly number[], seed: number): Tensor => device.tensor(random(shape, seed), shape, 'f32');
      const [q, k, v] = [tensor([B, H, 1, D], 1), tensor([B, K, S, D], 2), tensor([B, K, S, D], 3)] as const;
      const lengths = Int32Array.of(5, 7);
      const mask = slotMask(lengths, S, window) as Float32Array;
      const got = device.readFloats(singleQueryAttention(q, k, v, device.tensor(mask, [B, 1, 1, S], 'f32'), { softcap }));
      const p = device.primitives;
      lengths.forEach((length, row) => {
        const part = (x: Tensor, heads: number, slots: number): Tensor => p.slice(x, [row, 0, 0, 0], [1, heads, slots, D]);
        const wanted = mergeHeads(attention(part(q, H, 1), part(k, K, length + 1), part(v, K, length + 1), blockMask(device, causalMask(1, length + 1, length, window)), { softcap }));
        device.readFloats(wanted).forEach((value, i) => expect(Math.abs(value - (got[row * H * D + i] ?? NaN))).toBeLessThan(1e-5));
      });
    });
  });

  test('rows that are alike share a mask, and none is needed where every slot is seen', () => {
    expect(slotMask(Int32Array.of(2, 2), 4)).toHaveLength(4);
    expect(slotMask(Int32Array.of(3, 3), 4)).toBeNull();
    expect(slotMask(Int32Array.of(3, 3), 4, 2)).not.toBeNull();
  });

  test('the rotation to one position is that of the tables', async () => {
    const device = await testDevice(backend);
    device.scope(() => {
      const inverseFrequencies = Float64Array.of(1, 0.3);
      const x = device.tensor(random([B, H, 1, D], 4), [B, H, 1, D], 'f32');
      const common = { inverseFrequencies, columns: 1, dtype: 'f32' } as const;
      const one = device.readFloats(rope(x, ropeTables(device, { ...common, rows: 1, positions: Int32Array.of(11) })));
      const perRow = device.readFloats(rope(x, ropeTables(device, { ...common, rows: B, positions: Int32Array.of(11, 11) })));
      perRow.forEach((value, i) => expect(Math.abs(value - (one[i] ?? NaN))).toBeLessThan(1e-6));
    });
  });

  test('rows are overwritten where they are, also under a view', async () => {
    const device = await testDevice(backend);
    device.scope(() => {
      const p = device.primitives;
      const whole = p.zeros([2, 3, 2], 'f32');
      const flat = p.reshape(whole, [6, 2]);
      p.writeRows(flat, device.tensor(Int32Array.of(4, 1), [2], 'i32'), device.tensor(Float32Array.of(1, 2, 3, 4), [2, 2], 'f32'));
      expect([...device.readFloats(whole)]).toEqual([0, 0, 3, 4, 0, 0, 0, 0, 1, 2, 0, 0]);
    });
  });
});

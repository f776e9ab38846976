import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * Some rows of a matrix.
 * @param x [N, C]   @param rows distinct, in 0 .. N-1
 * @returns [rows.length, C]
 */
export function selectRows(x: Tensor, rows: Int32Array): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'selectRows',
    inputs: [x],
    run: () => ({ outputs: [p.gather(x, x.device.tensor(Int32Array.from(rows), [rows.length], 'i32'))], save: [] }),
    backward: ({ gradients: [g] }) => [g ? scatterRows(p, [g], rows, x.dim(0)) : null],
  });
}

/**
 * Rows put into a matrix of `count` rows; the others are zero. The adjoint of `selectRows`.
 * @param x [n, C]   @param rows n distinct ones in 0 .. count-1
 */
export function placeRows(x: Tensor, rows: Int32Array, count: number): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'placeRows',
    inputs: [x],
    run: () => ({ outputs: [p.reshape(scatterRows(p, [x], rows, count), [count, x.dim(1)])], save: [] }),
    backward: ({ gradients: [g] }) => [g ? p.gather(g, x.device.tensor(Int32Array.from(rows), [rows.length], 'i32')) : null],
  });
}

/**
 * Mean of the first `lengths[b]` of every T rows.
 * @param x [B*T, C]   @param lengths B counts in 1 .. T
 * @returns [B, C]
 */
export function meanOfRows(x: Tensor, lengths: Int32Array): Tensor {
  const device = x.device;
  const p = device.primitives;
  const [total, batch] = [x.dim(0), lengths.length];
  const weights = new Float32Array(batch * total);
  lengths.forEach((length, row) => weights.fill(1 / length, row * total + (row * total) / batch, row * total + (row * total) / batch + length));
  const dtype = x.dtype === 'bf16' ? 'bf16' : 'f32';
  return singleOutputOp(device, {
    name: 'meanOfRows',
    inputs: [x],
    run: () => {
      const factors = p.cast(device.tensor(weights, [batch, total], 'f32'), dtype);
      return { outputs: [p.matMul(factors, x)], save: [factors] };
    },
    backward: ({ gradients: [g], saved: [factors] }) => [g && factors ? p.matMul(factors, g, true, false) : null],
  });
}

/**
 * Puts rows back into a matrix of `count` rows; the others are zero. A gather from the parts and a zero row at their end, hence deterministic.
 * @param parts of [n_i, C], together one row per entry of `rows`
 */
export function scatterRows(p: Primitives, parts: readonly Tensor[], rows: Int32Array, count: number): Tensor {
  const [first] = parts as [Tensor];
  if (rows.length === count && rows.every((row, index) => row === index)) return parts.length === 1 ? first : p.concat(parts, 0);
  const zero = p.zeros([1, first.dim(1)], first.dtype === 'bf16' ? 'bf16' : 'f32');
  const place = new Int32Array(count).fill(rows.length);
  rows.forEach((row, index) => (place[row] = index));
  return p.gather(p.concat([...parts, zero], 0), first.device.tensor(place, [count], 'i32'));
}

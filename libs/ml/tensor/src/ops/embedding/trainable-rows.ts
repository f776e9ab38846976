import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { scatterRows } from '../layout/rows';

/**
 * Some rows of `x` replaced by rows of a trainable table.
 * @param x [N, C]   @param table [M, C] f32   @param index N rows of the table; -1: the row of `x` stays   @param factor of the table's rows
 * @returns [N, C] in the dtype of `x`
 */
export function replaceRows(x: Tensor, table: Tensor, index: Int32Array, factor: number): Tensor {
  const p = x.device.primitives;
  invariant(index.length === x.dim(0), `${index.length} indices for ${x.dim(0)} rows`);
  const stays = index.some((row) => row < 0);
  const keep = (): Tensor => x.device.tensor(Float32Array.from(index, (row) => (row < 0 ? 1 : 0)), [index.length, 1], 'f32');
  return singleOutputOp(x.device, {
    name: 'replaceRows',
    inputs: [x, table],
    run: () => {
      const rows = p.gather(table, x.device.tensor(Int32Array.from(index, (row) => Math.max(0, row)), [index.length], 'i32'));
      const placed = p.cast(factor === 1 ? rows : p.scale(rows, factor), x.dtype);
      if (!stays) return { outputs: [placed], save: [] };
      const mask = p.compare('greaterEqual', keep(), x.device.scalar(0.5, 'f32')); // [N, 1]
      return { outputs: [p.select(p.tile(mask, [1, x.dim(1)]), x, placed)], save: [] };
    },
    backward: ({ gradients: [g], needs }) => {
      if (!g) return [null, null];
      const wide = needs[1] ? p.cast(factor === 1 ? g : p.scale(g, factor), 'f32') : null;
      return [needs[0] && stays ? p.mul(g, p.cast(keep(), g.dtype)) : null, wide && sumByIndex(p, wide, index, table.dim(0))];
    },
  });
}

/**
 * A low-rank update of an embedding: x + factor * (Aᵀ)[id] Bᵀ, computed in the dtype of `x`.
 * @param x [N, C]   @param a [R, V] f32   @param b Bᵀ, [R, C] f32   @param ids N columns of `a`
 * @returns [N, C]
 */
export function embeddingLora(x: Tensor, a: Tensor, b: Tensor, ids: Int32Array, factor: number): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'embeddingLora',
    inputs: [x, a, b],
    run: () => {
      const narrow = p.gather(p.transpose(a, [1, 0]), x.device.tensor(Int32Array.from(ids), [ids.length], 'i32')); // [N, R]
      const update = p.matMul(p.cast(narrow, x.dtype), p.cast(factor === 1 ? b : p.scale(b, factor), x.dtype));
      return { outputs: [p.add(x, update)], save: [narrow, b] };
    },
    backward: ({ gradients: [g], saved: [narrow, factors], needs }) => {
      if (!g || !narrow || !factors) return [null, null, null];
      const scaled = p.cast(factor === 1 ? g : p.scale(g, factor), 'f32');
      return [
        needs[0] ? g : null,
        needs[1] ? p.transpose(sumByIndex(p, p.matMul(scaled, factors, false, true), ids, a.dim(1)), [1, 0]) : null,
        needs[2] ? p.matMul(narrow, scaled, true, false) : null,
      ];
    },
  });
}

/** Sums rows of equal index, a product with zeros and ones: the same bits every time. @param x [N, C] f32   @param index -1: left out   @returns [count, C] */
function sumByIndex(p: Primitives, x: Tensor, index: Int32Array, count: number): Tensor {
  const distinct = [...new Set(index)].filter((row) => row >= 0).sort((a, b) => a - b);
  if (distinct.length === 0) return p.zeros([count, x.dim(1)], 'f32');
  const place = new Map(distinct.map((row, at) => [row, at]));
  const members = new Float32Array(distinct.length * index.length);
  index.forEach((row, n) => row >= 0 && (members[(place.get(row) as number) * index.length + n] = 1));
  const sums = p.matMul(x.device.tensor(members, [distinct.length, index.length], 'f32'), x);
  return scatterRows(p, [sums], Int32Array.from(distinct), count);
}

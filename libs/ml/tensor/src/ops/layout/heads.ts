import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import { customOp, singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * Cuts the channels into groups of heads, as attention wants them: [B*T, sum(heads) * D] -> per entry of `heads` [B, heads_i, T, D].
 */
export function splitHeads(x: Tensor, batch: number, heads: readonly number[]): readonly Tensor[] {
  const p = x.device.primitives;
  const count = heads.reduce((sum, n) => sum + n, 0);
  return customOp(x.device, {
    name: 'splitHeads',
    inputs: [x],
    run: () => {
      const all = split(p, x, batch, count);
      return { outputs: heads.length === 1 ? [all] : p.split(all, heads, 1), save: [] };
    },
    backward: ({ gradients }) => {
      const parts = allOf(p, x, gradients, heads.map((n) => [batch, n, x.dim(0) / batch, x.dim(1) / count]));
      return [parts && merge(p, parts.length === 1 && parts[0] ? parts[0] : p.concat(parts, 1))];
    },
  });
}

/** [B, H, T, D] -> [B*T, H*D]; the inverse of `splitHeads` with one group. */
export function mergeHeads(x: Tensor): Tensor {
  const [batch = 1, heads = 1] = x.shape;
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'mergeHeads',
    inputs: [x],
    run: () => ({ outputs: [merge(p, x)], save: [x] }),
    // Attention keeps its output anyway.
    rematerialise: (saved) => saved.map((tensor) => merge(p, tensor)),
    backward: ({ gradients: [g = null] }) => [g && split(p, g, batch, heads)],
  });
}

/** Cuts one axis into parts. */
export function splitAxis(x: Tensor, sizes: readonly number[], axis: number): readonly Tensor[] {
  const p = x.device.primitives;
  return customOp(x.device, {
    name: 'splitAxis',
    inputs: [x],
    run: () => ({ outputs: p.split(x, sizes, axis), save: [] }),
    backward: ({ gradients }) => {
      const parts = allOf(p, x, gradients, sizes.map((size) => x.shape.map((whole, index) => (index === axis ? size : whole))));
      return [parts && (parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, axis))];
    },
  });
}

/** The gradients with zeros for the missing ones; null when all are missing. */
function allOf(p: Primitives, x: Tensor, gradients: readonly (Tensor | null)[], shapes: readonly (readonly number[])[]): readonly Tensor[] | null {
  if (gradients.every((g) => g === null)) return null;
  return shapes.map((shape, index) => gradients[index] ?? p.zeros(shape, x.dtype === 'bf16' ? 'bf16' : 'f32'));
}

function split(p: Primitives, x: Tensor, batch: number, heads: number): Tensor {
  const [time, width] = [x.dim(0) / batch, x.dim(1) / heads];
  invariant(Number.isInteger(time) && Number.isInteger(width), `[${x.shape.join(', ')}] in ${batch} rows and ${heads} heads`);
  if (time === 1) return p.reshape(x, [batch, heads, 1, width]);
  return p.transpose(p.reshape(x, [batch, time, heads, width]), [0, 2, 1, 3]);
}

function merge(p: Primitives, x: Tensor): Tensor {
  const [batch = 1, heads = 1, time = 1, width = 1] = x.shape;
  const rows = time === 1 ? x : p.transpose(x, [0, 2, 1, 3]);
  return p.reshape(rows, [batch * time, heads * width]);
}

import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * The same keys or values before those of every row.
 * @param x [B, K, S, D]   @param before [1, K, n, D], in any float dtype
 * @returns [B, K, n + S, D] in the dtype of `x`
 */
export function precede(x: Tensor, before: Tensor): Tensor {
  const p = x.device.primitives;
  const [batch = 1, , own = 0] = x.shape;
  const length = before.dim(2);
  return singleOutputOp(x.device, {
    name: 'precede',
    inputs: [x, before],
    run: () => {
      const typed = p.cast(before, x.dtype);
      return { outputs: [p.concat([batch === 1 ? typed : p.tile(typed, [batch, 1, 1, 1]), x], 2)], save: [] };
    },
    backward: ({ gradients: [g], needs }) => {
      if (!g) return [null, null];
      const [first, rest] = p.split(g, [length, own], 2) as [Tensor, Tensor];
      return [needs[0] ? rest : null, needs[1] ? p.cast(batch === 1 ? first : p.reduce('sum', p.cast(first, 'f32'), [0], true), before.dtype) : null];
    },
  });
}

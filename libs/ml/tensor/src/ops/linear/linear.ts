import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * A trainable linear map, x Wᵀ + b, computed in the dtype of `x`. Keeps x and the weight.
 * @param x [N, in]   @param weight [out, in], or [in, out] with the layout `inOut`; f32 where it is trained   @param bias [out] alike, or null
 * @returns [N, out]; gradients by weight and bias are f32
 */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null, layout: 'outIn' | 'inOut' = 'outIn'): Tensor {
  const p = x.device.primitives;
  const turned = layout === 'outIn';
  return singleOutputOp(x.device, {
    name: 'linear',
    inputs: [x, weight, ...(bias ? [bias] : [])],
    run: () => {
      const product = p.matMul(x, p.cast(weight, x.dtype), false, turned);
      return { outputs: [bias ? p.add(product, p.cast(bias, x.dtype)) : product], save: [x, weight] };
    },
    backward: ({ gradients: [g], saved: [source, matrix], needs }) => {
      if (!g || !source || !matrix) return [null, null, null];
      return [
        needs[0] ? p.matMul(g, p.cast(matrix, g.dtype), false, !turned) : null,
        needs[1] ? p.cast(turned ? p.matMul(g, source, true, false) : p.matMul(source, g, true, false), 'f32') : null,
        ...(bias ? [needs[2] ? p.reduce('sum', p.cast(g, 'f32'), [0]) : null] : []),
      ];
    },
  });
}

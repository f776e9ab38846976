import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * Root-mean-square norm: y = weight * (x / sqrt(mean(x²) + epsilon)), over the last axis. The quotient is computed in f32 and rounded to the
 * dtype of `x` before the weight comes in, as Transformers does: in bf16 the two then round alike.
 * Cheap, so its output is computed again rather than kept for the backward pass.
 * @param x [N, C] f32 or bf16
 * @param weight [C] in the dtype of `x`, frozen: it gets no gradient
 * @returns [N, C] in the dtype of `x`
 * @see Zhang and Sennrich 2019, arXiv:1910.07467
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'rmsNorm',
    inputs: [x],
    rematerialise: true,
    run: () => {
      const wide = p.cast(x, 'f32');
      return { outputs: [p.mul(p.cast(p.mul(wide, inverseRms(p, wide, epsilon)), x.dtype), weight)], save: [x, weight] };
    },
    backward: ({ gradients: [g], saved: [source] }) => {
      if (!g || !source) return [null];
      const wide = p.cast(source, 'f32');
      const inverse = inverseRms(p, wide, epsilon); // [N, 1]
      const normalised = p.mul(wide, inverse); // [N, C]
      const weighted = p.cast(p.mul(g, weight), 'f32'); // [N, C]
      const projection = p.reduce('mean', p.mul(weighted, normalised), [1], true); // [N, 1]
      const dx = p.mul(p.sub(weighted, p.mul(normalised, projection)), inverse);
      return [p.cast(dx, source.dtype)];
    },
  });
}

function inverseRms(p: Primitives, x: Tensor, epsilon: number): Tensor {
  const meanSquare = p.reduce('mean', p.unary('square', x), [1], true);
  return p.unary('rsqrt', p.add(meanSquare, x.device.scalar(epsilon, 'f32')));
}

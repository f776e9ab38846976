import { isFused } from '../../fused-primitives';
import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * Root-mean-square norm: y = weight * (x / sqrt(mean(x²) + epsilon)), over the last axis. The quotient is computed in f32 and rounded to the
 * dtype of the weight before that comes in: with weights in the dtype of `x` bf16 rounds as in Transformers' Llama, with f32 weights as in its Gemma.
 * Its output is computed again, from x and the inverse root [.., 1], rather than kept for the backward pass.
 * @param x [.., C] f32 or bf16
 * @param weight [C] in the dtype of `x` or f32; its gradient is f32
 * @returns [.., C] in the dtype of `x`
 * @see Zhang and Sennrich 2019, arXiv:1910.07467
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'rmsNorm',
    inputs: [x, weight],
    run: () => {
      if (isFused(x) && isFused(weight)) {
        const [y, inverse] = x.device.fused.rmsNorm(x, weight, epsilon);
        return { outputs: [y], save: [x, weight, inverse] };
      }
      const wide = p.cast(x, 'f32');
      const inverse = inverseRms(p, wide, epsilon);
      return { outputs: [p.cast(weighted(p, p.mul(wide, inverse), weight), x.dtype)], save: [x, weight, inverse] };
    },
    rematerialise: ([source, gain, inverse]) => {
      if (!source || !gain || !inverse) return [];
      if (isFused(source) && isFused(gain)) return source.device.fused.rmsNorm(source, gain, epsilon).slice(0, 1);
      const normalised = p.mul(p.cast(source, 'f32'), inverse);
      return [p.cast(weighted(p, normalised, gain), source.dtype), normalised];
    },
    backward: ({ gradients: [g], saved: [source, gain, inverse], recomputed: [, known], needs }) => {
      if (!g || !source || !gain || !inverse) return [null, null];
      const fused = isFused(source) && isFused(gain) ? source.device.fused : null;
      if (fused && !needs[1]) return [fused.rmsNormGradient(g, source, gain, inverse), null];
      const normalised = known ?? p.mul(p.cast(source, 'f32'), inverse); // [.., C]
      const dWeight = needs[1] ? p.reduce('sum', p.mul(p.cast(g, 'f32'), normalised), leadingAxes(source)) : null; // [C]
      if (!needs[0]) return [null, dWeight];
      const dNormalised = p.cast(p.mul(p.cast(g, gain.dtype), gain), 'f32'); // [.., C]
      const projection = p.reduce('mean', p.mul(dNormalised, normalised), [source.rank - 1], true); // [.., 1]
      const dx = p.mul(p.sub(dNormalised, p.mul(normalised, projection)), inverse);
      return [p.cast(dx, source.dtype), dWeight];
    },
  });
}

/** All but the last. */
function leadingAxes({ rank }: Tensor): number[] {
  return Array.from({ length: rank - 1 }, (_, axis) => axis);
}

function weighted(p: Primitives, normalised: Tensor, weight: Tensor): Tensor {
  return p.mul(p.cast(normalised, weight.dtype), weight);
}

/** [.., 1] */
function inverseRms(p: Primitives, x: Tensor, epsilon: number): Tensor {
  const meanSquare = p.reduce('mean', p.unary('square', x), [x.rank - 1], true);
  return p.unary('rsqrt', p.add(meanSquare, x.device.scalar(epsilon, 'f32')));
}

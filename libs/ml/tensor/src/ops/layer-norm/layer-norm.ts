import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * Layer norm over the last axis: y = weight * (x - mean) / sqrt(variance + epsilon) + bias, computed in f32 and rounded once.
 * Its output is computed again, from x and the two moments, rather than kept for the backward pass.
 * @param x [N, C] f32 or bf16
 * @param weight [C]   @param bias [C]; in the dtype of `x` or f32; their gradients are f32
 * @returns [N, C] in the dtype of `x`
 * @see Ba, Kiros and Hinton 2016, arXiv:1607.06450
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'layerNorm',
    inputs: [x, weight, bias],
    run: () => {
      const wide = p.cast(x, 'f32');
      const mean = p.reduce('mean', wide, [1], true); // [N, 1]
      const variance = p.reduce('mean', p.unary('square', p.sub(wide, mean)), [1], true);
      const inverse = p.unary('rsqrt', p.add(variance, x.device.scalar(epsilon, 'f32')));
      const normalised = p.mul(p.sub(wide, mean), inverse);
      return { outputs: [affine(p, normalised, weight, bias, x)], save: [x, weight, bias, mean, inverse] };
    },
    rematerialise: ([source, gain, shift, mean, inverse]) => {
      if (!source || !gain || !shift || !mean || !inverse) return [];
      const normalised = p.mul(p.sub(p.cast(source, 'f32'), mean), inverse);
      return [affine(p, normalised, gain, shift, source), normalised];
    },
    backward: ({ gradients: [g], saved: [source, gain, , mean, inverse], recomputed: [, known], needs }) => {
      if (!g || !source || !gain || !mean || !inverse) return [null, null, null];
      const normalised = known ?? p.mul(p.sub(p.cast(source, 'f32'), mean), inverse); // [N, C]
      const wide = p.cast(g, 'f32');
      const trained = [needs[1] ? p.reduce('sum', p.mul(wide, normalised), [0]) : null, needs[2] ? p.reduce('sum', wide, [0]) : null];
      if (!needs[0]) return [null, ...trained];
      const dNormalised = p.mul(wide, p.cast(gain, 'f32')); // [N, C]
      const average = p.reduce('mean', dNormalised, [1], true); // [N, 1]
      const projection = p.reduce('mean', p.mul(dNormalised, normalised), [1], true); // [N, 1]
      const dx = p.mul(p.sub(p.sub(dNormalised, average), p.mul(normalised, projection)), inverse);
      return [p.cast(dx, source.dtype), ...trained];
    },
  });
}

function affine(p: Primitives, normalised: Tensor, weight: Tensor, bias: Tensor, like: Tensor): Tensor {
  return p.cast(p.add(p.mul(normalised, p.cast(weight, 'f32')), p.cast(bias, 'f32')), like.dtype);
}

import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { multiplyBack, multiplyForward, type FrozenMatrix } from '../linear/linear';

export interface LoraFactors {
  /** [R, in] f32, trainable. */
  readonly a: Tensor;
  /** [out, R] f32, trainable. */
  readonly b: Tensor;
  /** alpha / R, or alpha / sqrt(R) with rsLoRA. */
  readonly scale: number;
}

export interface Dropout {
  /** Share of elements dropped, 0 < rate < 1. */
  readonly rate: number;
  /** Names the mask: equal keys give equal masks. */
  readonly key: readonly [number, number];
}

/**
 * Frozen linear map with a trainable low-rank update: y = x Wᵀ + bias + scale * (drop(x) Aᵀ) Bᵀ.
 * Keeps `x` and the mask; the rank-R product is computed again in the backward pass.
 * @param x [N, in] in the weight's dtype; the factors are cast to it
 * @returns [N, out]
 * @see Hu et al. 2021, arXiv:2106.09685, section 4.1
 */
export function loraLinear(x: Tensor, weight: FrozenMatrix, bias: Tensor | null, factors: LoraFactors, dropout: Dropout | null): Tensor {
  const p = x.device.primitives;
  const { a, b, scale } = factors;
  return singleOutputOp(x.device, {
    name: 'loraLinear',
    inputs: [x, a, b],
    run: () => {
      const mask = dropout ? dropoutMask(p, x, dropout) : null;
      const update = p.matMul(scaledProduct(p, dropped(p, x, mask, dropout), a, scale), p.cast(b, x.dtype), false, true);
      const base = multiplyForward(x, weight);
      const sum = p.add(base, update);
      return { outputs: [bias ? p.add(sum, bias) : sum], save: [x, a, b, weight.value, ...(mask ? [mask] : [])] };
    },
    backward: ({ gradients: [g], saved: [source, down, up, , mask], needs }) => {
      if (!g || !source || !down || !up) return [null, null, null];
      const input = dropped(p, source, mask ?? null, dropout);
      const dProduct = p.scale(p.matMul(g, p.cast(up, g.dtype)), scale); // [N, R]
      const dA = needs[1] ? p.cast(p.matMul(dProduct, input, true, false), 'f32') : null; // [R, in]
      const dB = needs[2] ? p.cast(p.matMul(g, scaledProduct(p, input, down, scale), true, false), 'f32') : null; // [out, R]
      if (!needs[0]) return [null, dA, dB];
      const branch = dropped(p, p.matMul(dProduct, p.cast(down, g.dtype)), mask ?? null, dropout); // [N, in]
      return [p.add(multiplyBack(g, weight), branch), dA, dB];
    },
  });
}

/** scale * x Aᵀ, [N, R]. */
function scaledProduct(p: Primitives, x: Tensor, a: Tensor, scale: number): Tensor {
  const product = p.matMul(x, p.cast(a, x.dtype), false, true);
  return scale === 1 ? product : p.scale(product, scale);
}

/** True where an element stays. */
function dropoutMask(p: Primitives, x: Tensor, dropout: Dropout): Tensor {
  return p.compare('greaterEqual', p.randomUniform(x.shape, dropout.key), x.device.scalar(dropout.rate, 'f32'));
}

/** Zeroes the masked elements and raises the others, so that the expectation stays. Its own adjoint. */
function dropped(p: Primitives, x: Tensor, mask: Tensor | null, dropout: Dropout | null): Tensor {
  if (!mask || !dropout) return x;
  return p.scale(p.mul(x, p.cast(mask, x.dtype)), 1 / (1 - dropout.rate));
}

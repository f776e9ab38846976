import { add, cast, layerNorm, rmsNorm, type FloatDType, type RowNorm, type Tensor } from '@tunefleet/ml-tensor';
import type { ModelHook } from './model-hook';

/** A norm of a model, as its checkpoint has it. */
export interface NormSite {
  /** Module path in the Hugging Face model: `model.layers.0.input_layernorm`. */
  readonly path: string;
  /** Block it belongs to, from 0; the number of blocks for what comes after them, -1 for what comes before. */
  readonly layer: number;
  /** Elements of its weight. */
  readonly size: number;
  /** A layer norm, which has a bias; else a root-mean-square norm. */
  readonly biased?: true;
  /** Its weight is stored less one. */
  readonly centred?: true;
}

/** The same with frozen weights, on a device. */
export interface Norm extends NormSite {
  /** [size], as it multiplies; with `centred` in f32. */
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly epsilon: number;
}

/** Trainable weights of a norm, f32, as its checkpoint has them. */
export interface NormWeights {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
}

/** x under a norm, with the weights that `hook` has in place of the frozen ones. @param x [.., size]   @returns alike, the caller's */
export function normalise(x: Tensor, norm: Norm, hook: ModelHook | null): Tensor {
  const trained = hook?.norms?.get(norm.path);
  if (!trained) return normed(x, norm.weight, norm.bias, norm.epsilon);
  return x.device.scope(() => normed(x, multiplying(trained.weight, norm), trained.bias && norm.bias && cast(trained.bias, norm.bias.dtype as FloatDType), norm.epsilon));
}

/** A root-mean-square norm that nothing replaces, for ops that have it in front; null if it is another one. */
export function rowNorm({ path, weight, bias, epsilon }: Norm, hook: ModelHook | null): RowNorm<Tensor> | null {
  return bias === null && !hook?.norms?.has(path) ? { weight, epsilon } : null;
}

function normed(x: Tensor, weight: Tensor, bias: Tensor | null, epsilon: number): Tensor {
  return bias === null ? rmsNorm(x, weight, epsilon) : layerNorm(x, weight, bias, epsilon);
}

/** A trained weight as it multiplies, in the dtype of the frozen one, on which the rounding depends. */
function multiplying(weight: Tensor, { centred, weight: frozen, size }: Norm): Tensor {
  if (centred) return add(weight, weight.device.tensor(new Float32Array(size).fill(1), [size], 'f32'));
  return cast(weight, frozen.dtype as FloatDType);
}

/** First and second moments of the gradient, one element per parameter. */
export interface AdamWState {
  readonly m: Float32Array;
  readonly v: Float32Array;
  /** Updates done. */
  updates: number;
}

/** Elements from `begin` up to `end` that are updated alike. */
export interface AdamWGroup {
  readonly begin: number;
  readonly end: number;
  /** Of the learning rate. */
  readonly rateFactor: number;
  readonly decays: boolean;
}

export interface AdamWOptions {
  /** Default: everything alike. */
  readonly groups?: readonly AdamWGroup[];
  readonly weightDecay: number;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly epsilon?: number;
}

export function newAdamWState(parameterCount: number): AdamWState {
  return { m: new Float32Array(parameterCount), v: new Float32Array(parameterCount), updates: 0 };
}

/**
 * One AdamW update with decoupled weight decay, in place, on the host: 2.4 M parameters take 17 ms in this loop and 37 ms as device ops (2-core EPYC), and
 * the result does not depend on how the device orders its sums. Arithmetic in double precision, stored as float32.
 * @param gradient already summed over the step; multiplied by `gradientScale` (clipping) on the way
 * @see Loshchilov & Hutter 2019, arXiv:1711.05101; step order and epsilon as in `torch.optim.AdamW`
 */
export function adamWUpdate(
  values: Float32Array,
  gradient: Float32Array,
  state: AdamWState,
  options: AdamWOptions & { readonly learningRate: number; readonly gradientScale?: number },
): void {
  const { learningRate, weightDecay, gradientScale = 1, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 } = options;
  const { m, v } = state;
  state.updates++;
  const rootCorrection = 1 / Math.sqrt(1 - beta2 ** state.updates);
  for (const { begin, end, rateFactor, decays } of options.groups ?? [{ begin: 0, end: values.length, rateFactor: 1, decays: true }]) {
    const rate = learningRate * rateFactor;
    const stepSize = rate / (1 - beta1 ** state.updates);
    const keep = 1 - (decays ? rate * weightDecay : 0);
    for (let i = begin; i < end; i++) {
      const g = (gradient[i] as number) * gradientScale;
      const first = beta1 * (m[i] as number) + (1 - beta1) * g;
      const second = beta2 * (v[i] as number) + (1 - beta2) * g * g;
      m[i] = first;
      v[i] = second;
      values[i] = (values[i] as number) * keep - (stepSize * first) / (Math.sqrt(second) * rootCorrection + epsilon);
    }
  }
}

/** Euclidean norm over all parameters; NaN or infinite exactly when an element is. */
export function gradientNorm(gradient: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < gradient.length; i++) {
    const g = gradient[i] as number;
    sum += g * g;
  }
  return Math.sqrt(sum);
}

/** Factor that brings a gradient of norm `norm` down to `maxNorm`; at most 1. @see `torch.nn.utils.clip_grad_norm_` */
export function clipFactor(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}

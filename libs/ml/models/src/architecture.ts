import type { Device, FloatDType, QuantisedWeights, Tensor } from '@tunefleet/ml-tensor';
import type { CausalLm } from './causal-lm';
import type { ExpectedWeight } from './loading/weight-loader';

/** Quantised: only linear maps, [out, in] whatever the checkpoint has. */
export type LoadedWeight = Tensor | QuantisedWeights;

/** The half of an architecture that computes. `config` is config.json, unchecked; both throw `incompatible_artifact` when it is unusable. */
export interface Architecture<Model = CausalLm> {
  /** The checkpoint's tensors; `isRedundant`: extra tensors that may be ignored without a word. */
  weights(config: unknown): { readonly expected: readonly ExpectedWeight[]; isRedundant(name: string): boolean };
  /** @param weight gives each expected tensor once, matrices in the dtype they rest in, the others in the compute dtype; it belongs to the model from then on */
  build(device: Device, config: unknown, computeDtype: FloatDType, weight: (name: string) => LoadedWeight): Model;
}

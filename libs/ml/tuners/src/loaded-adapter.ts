import type { ProjectionHook } from '@tunefleet/ml-nn';
import type { FloatDType } from '@tunefleet/ml-tensor';
import type { TunableModel, Tuner } from './tuner';

/** A model with weights, as far as an adapter needs to know it; a `CausalLm` is one. */
export interface AdaptableModel extends TunableModel {
  readonly computeDtype: FloatDType;
}

/** An adapter read from a folder, ready for inference; `tuner` and `values` are there to train it further or save it. */
export interface LoadedAdapter {
  /** Usable until `dispose`. Without gradients: to train, bind `tuner` to tensors of one's own. */
  readonly hook: ProjectionHook;
  readonly tuner: Tuner;
  /** All parameters one after the other, f32. */
  readonly values: Float32Array;
  /** What the user should be told. */
  readonly notices: readonly string[];
  dispose(): void;
}

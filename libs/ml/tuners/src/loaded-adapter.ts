import type { ModelHook } from '@tunefleet/ml-nn';
import type { BindableModel, TunableModel, Tuner } from './tuner';

/** A model to load an adapter for; a `CausalLm` is one. */
export type AdaptableModel = TunableModel & BindableModel;

/** An adapter read from a folder, ready for inference; `tuner` and `values` are there to train it further or save it. */
export interface LoadedAdapter {
  /** Usable until `dispose`. Without gradients: to train, bind `tuner` to tensors of one's own. */
  readonly hook: ModelHook;
  readonly tuner: Tuner;
  /** All parameters one after the other, f32. */
  readonly values: Float32Array;
  /** What the user should be told. */
  readonly notices: readonly string[];
  dispose(): void;
}

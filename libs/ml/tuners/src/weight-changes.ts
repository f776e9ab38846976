import { TunefleetError } from '@tunefleet/foundation';
import type { TunableModel } from './tuner';

/** What an adapter makes of one tensor of a checkpoint. */
export interface WeightChange {
  /** The base's tensor it starts from: its own, or the embedding's for a tied head that gets a tensor of its own. */
  readonly from: string;
  /** Not an error where the base has no such tensor: a bias. */
  readonly ifPresent?: true;
  /** Changes the base's values in place; f32, in the layout of the checkpoint. */
  apply(values: Float32Array): void;
}

/** An adapter that is a change of weights, by the names of the checkpoint's tensors. */
export interface WeightChanges {
  readonly byTensor: ReadonlyMap<string, WeightChange>;
  /** The head, which in the base is the embedding, gets a tensor of its own. */
  readonly unties: boolean;
  /** What the user should be told. */
  readonly notices: readonly string[];
}

/** A base known from its files, no device needed. */
export interface BaseOnDisk extends TunableModel {
  /** [V, C] f32, of the checkpoint. */
  table(kind: 'embedding' | 'head'): Float32Array;
}

/** @throws TunefleetError `invalid_input`: what the adapter does is no change of weights */
export function refuseMerge(kind: string, reason: string): TunefleetError {
  return new TunefleetError('invalid_input', `a ${kind} adapter cannot be merged into the weights: ${reason}; keep it as an adapter, or train a LoRA`, { reason: 'not_mergeable' });
}

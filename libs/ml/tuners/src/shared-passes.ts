import { specHalfOf, type TunerSpec } from './spec-registry';
import type { TunableModel } from './tuner';

/** What a run's passes go through: the blocks with a gradient, or a bypass beside them, and then none reaches adapters of the blocks. */
export type SharedPasses = 'blocks' | 'bypass';

/** Runs on one model share passes where this is the same. Null: a run of this tuner needs its own. @throws TunefleetError `invalid_input` when the tuner does not fit the model */
export function sharedPasses(spec: TunerSpec, model: TunableModel): SharedPasses | null {
  const half = specHalfOf(spec);
  if (!(half.routable?.(spec, model) ?? false)) return null;
  return half.stemStates === undefined ? 'blocks' : 'bypass';
}

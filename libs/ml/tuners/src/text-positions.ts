import { TunefleetError } from '@tunefleet/foundation';
import { specHalfOf, type TunerSpec } from './spec-registry';

/** Positions that a tuner's virtual tokens leave for text. @throws TunefleetError `invalid_input` when that is not even one */
export function textPositions(spec: TunerSpec, maxPositions: number): number {
  const virtual = specHalfOf(spec).virtualTokens?.(spec) ?? 0;
  if (virtual < maxPositions) return maxPositions - virtual;
  throw new TunefleetError('invalid_input', `tuner: ${virtual} virtual tokens leave no room for text: the model was made for ${maxPositions} positions; ask for fewer`, { reason: 'invalid_tuner', param: 'tuner' });
}

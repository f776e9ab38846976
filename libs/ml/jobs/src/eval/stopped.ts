import { TunefleetError } from '@tunefleet/foundation';

/** Ends the handler at a point where a stop was wanted; `runJob` makes the outcome `stopped` of it. */
export function stopped(): TunefleetError {
  return new TunefleetError('cancelled', 'stopped on request');
}

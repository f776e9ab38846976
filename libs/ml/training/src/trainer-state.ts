import { newAdamWState, type AdamWState } from './adamw';

/**
 * All that changes during a run. The place in the data and the random masks follow from `step` and the seed, so nothing else needs keeping for an exact resume.
 */
export interface TrainerState {
  /** [P] trainable values, float32. */
  readonly values: Float32Array;
  readonly moments: AdamWState;
  /** Optimiser steps done. */
  step: number;
  /** Tokens fed to the model so far, padding left out. */
  trainedTokens: number;
  /** Tokens that carried loss so far. */
  lossTokens: number;
  /** Loss of the first and the newest step; null before any. */
  lossFirst: number | null;
  lossLast: number | null;
}

/** @param values taken over */
export function startState(values: Float32Array): TrainerState {
  return { values, moments: newAdamWState(values.length), step: 0, trainedTokens: 0, lossTokens: 0, lossFirst: null, lossLast: null };
}

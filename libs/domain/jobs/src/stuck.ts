/** An attempt that trains, by its steps. */
export interface StepPace {
  readonly sinceStepMs: number;
  /** Of its last steps; null while there are too few to tell. */
  readonly medianStepMs: number | null;
}

export interface StuckRule {
  /** Without a step for so many times its usual time, an attempt is noted as stuck … */
  readonly noteFactor: number;
  readonly noteMsMin: number;
  /** … and for so many times, it is given up as an infrastructure failure. */
  readonly failFactor: number;
  readonly failMsMin: number;
}

/** The minima are far above a lease, so that steps which only could not be told are never missed. */
export const defaultStuckRule: StuckRule = { noteFactor: 20, noteMsMin: 120_000, failFactor: 100, failMsMin: 900_000 };

export type StuckVerdict = 'goes_on' | 'stuck' | 'give_up';

export function judgePace({ sinceStepMs, medianStepMs }: StepPace, rule: StuckRule): StuckVerdict {
  if (medianStepMs === null) return 'goes_on';
  if (sinceStepMs >= Math.max(rule.failMsMin, rule.failFactor * medianStepMs)) return 'give_up';
  return sinceStepMs >= Math.max(rule.noteMsMin, rule.noteFactor * medianStepMs) ? 'stuck' : 'goes_on';
}

export function stuckMessage({ sinceStepMs, medianStepMs }: StepPace): string {
  return `no step for ${Math.round(sinceStepMs / 1000)} s; its steps took ${((medianStepMs ?? 0) / 1000).toFixed(1)} s before`;
}

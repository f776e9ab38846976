import { assertNever } from '@tunefleet/foundation';

export type ScheduleName = 'cosine' | 'linear' | 'constant';

export interface Schedule {
  readonly name: ScheduleName;
  /** Rate after warm-up. */
  readonly learningRate: number;
  readonly totalSteps: number;
  readonly warmupSteps: number;
}

/** Warm-up steps of a ratio, rounded up as Transformers' trainer does. */
export function warmupStepsOf(totalSteps: number, warmupRatio: number): number {
  return Math.ceil(totalSteps * warmupRatio);
}

/**
 * Learning rate of optimiser step `step`, counted from 0. With warm-up the first step's rate is 0, as in the reference.
 * @see huggingface/transformers `src/transformers/optimization.py`: `get_cosine_schedule_with_warmup` (half a cosine), `get_linear_schedule_with_warmup`,
 *   `get_constant_schedule_with_warmup`
 */
export function learningRateAt(schedule: Schedule, step: number): number {
  const { name, learningRate, totalSteps, warmupSteps } = schedule;
  if (step < warmupSteps) return learningRate * (step / Math.max(1, warmupSteps));
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  switch (name) {
    case 'cosine':
      return learningRate * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
    case 'linear':
      return learningRate * Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps));
    case 'constant':
      return learningRate;
    default:
      return assertNever(name, 'schedule');
  }
}

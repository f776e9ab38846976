import type { Failure } from '@tunefleet/contracts';
import { assertNever, type JsonObject } from '@tunefleet/foundation';

/**
 * What becomes of a job after one of its attempts ended without success. Pure: the store applies the answer in the
 * transaction that ends the attempt. Budgets and delays are one table below.
 */
export type AfterFailure =
  | { readonly then: 'retry'; readonly counts: 'infrastructure' | 'resource' | 'none'; readonly delayMs: number; readonly specPatch?: JsonObject }
  | { readonly then: 'fail' };

/** The parts of a job that the decision reads. */
export interface RetryableJob {
  readonly infraFailures: number;
  readonly resourceFailures: number;
  readonly workerSpec: JsonObject | null;
  /** Examples per forward pass of the attempt that failed, as its worker said; null: it did not. */
  readonly microBatchSize?: number | null;
}

/** An ended attempt of the job, the one at hand left out. */
export interface EndedAttempt {
  readonly failure: Pick<Failure, 'class'> | null;
}

interface RetryBudget {
  /** Retries within the budget; Infinity: never fails the job. */
  readonly retries: number;
  /** The first retry is immediate: most lost workers were lost once, and recovery has to stay under 45 s. */
  readonly firstDelayMs: number;
  /** Delay of the second retry; doubled for each further one. */
  readonly baseDelayMs: number;
  readonly maxDelayMs: number;
}

export const retryBudgets: Readonly<Record<Failure['class'], RetryBudget>> = {
  user: { retries: 0, firstDelayMs: 0, baseDelayMs: 0, maxDelayMs: 0 },
  resource: { retries: 1, firstDelayMs: 0, baseDelayMs: 0, maxDelayMs: 0 },
  infrastructure: { retries: 5, firstDelayMs: 0, baseDelayMs: 5_000, maxDelayMs: 300_000 },
  platform: { retries: Number.POSITIVE_INFINITY, firstDelayMs: 5_000, baseDelayMs: 10_000, maxDelayMs: 900_000 },
};

/** @param history earlier attempts of the job, oldest first */
export function decideAfterFailure(job: RetryableJob, failure: Pick<Failure, 'class'>, history: readonly EndedAttempt[]): AfterFailure {
  const budget = retryBudgets[failure.class];
  switch (failure.class) {
    case 'user':
      return { then: 'fail' };
    case 'resource': {
      if (job.resourceFailures >= budget.retries) return { then: 'fail' };
      const specPatch = halvedMicroBatch(job);
      return { then: 'retry', counts: 'resource', delayMs: delayMs(budget, 0), ...(specPatch === null ? {} : { specPatch }) };
    }
    case 'infrastructure':
      if (job.infraFailures >= budget.retries) return { then: 'fail' };
      return { then: 'retry', counts: 'infrastructure', delayMs: delayMs(budget, job.infraFailures) };
    case 'platform':
      return { then: 'retry', counts: 'none', delayMs: delayMs(budget, consecutivePlatformFailures(history)) };
    default:
      return assertNever(failure.class, 'failure class');
  }
}

/** An attempt that was asked to stop (shutdown, preemption, lost lease) is no failure: the job goes on elsewhere at once. */
export const afterStop: AfterFailure = { then: 'retry', counts: 'none', delayMs: 0 };

function delayMs(budget: RetryBudget, earlierRetries: number): number {
  if (earlierRetries === 0) return budget.firstDelayMs;
  return Math.min(budget.maxDelayMs, budget.baseDelayMs * 2 ** (earlierRetries - 1));
}

function consecutivePlatformFailures(history: readonly EndedAttempt[]): number {
  let count = 0;
  for (let i = history.length - 1; i >= 0 && history[i]?.failure?.class === 'platform'; i--) count++;
  return count;
}

/**
 * A limit of half the examples per forward pass that did not fit. The batch stays as it is: more passes are added up to one step, so the
 * result is the same. Null: there is nothing to halve, only another try is left.
 */
function halvedMicroBatch({ workerSpec, microBatchSize }: RetryableJob): JsonObject | null {
  const sizes = [microBatchSize, workerSpec?.['microBatchSize'], workerSpec?.['batchSize']].filter((size) => typeof size === 'number');
  const tried = Math.min(...sizes);
  if (sizes.length === 0 || tried < 2) return null;
  return { microBatchSize: Math.floor(tried / 2) };
}

import type { AttemptKey, AttemptRecord } from '@tunefleet/ports';
import type { JobRow, Tables } from './tables';

export interface Fence {
  /** The epoch is the job's own, the job runs, and the attempt has not ended: what the worker says counts. */
  readonly live: boolean;
  readonly finished: boolean;
  readonly attempt: AttemptRecord;
  readonly job: JobRow;
  /** The lease has run out, or the worker has come back as another process. */
  readonly abandoned: boolean;
}

/** Null: no such attempt of that job at that epoch. */
export function fenceOf(tables: Tables, key: AttemptKey): Fence | null {
  const job = tables.jobs.get(key.jobId);
  const attempt = tables.attempts.get(key.attemptId);
  if (job === undefined || attempt === undefined || attempt.jobId !== key.jobId || attempt.epoch !== key.epoch) return null;
  const finished = attempt.status === 'finished';
  return {
    live: !finished && job.status === 'running' && job.epoch === key.epoch,
    finished,
    attempt,
    job,
    abandoned: attempt.leaseExpiresAt.getTime() <= tables.nowMs() || tables.workers.get(attempt.workerId)?.bootId !== attempt.workerBootId,
  };
}

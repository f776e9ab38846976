import type { AttemptKey, AttemptRecord } from '@tunefleet/ports';

export function keyOf(attempt: AttemptRecord): AttemptKey {
  return { jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch };
}

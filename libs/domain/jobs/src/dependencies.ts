import type { Failure } from '@tunefleet/contracts';
import type { JobStatus } from './job-states';

/** A job that another one is to run after. */
export interface ParentJob {
  readonly id: string;
  readonly status: JobStatus;
}

/** Jobs that one may wait for. */
export const PARENTS_MAX = 16;
const NAMED_MAX = 3;

/** True: whoever waits for it waits in vain. */
export function isLost(parent: ParentJob): boolean {
  return parent.status === 'failed' || parent.status === 'cancelled';
}

/** @param open parents that have not succeeded, at least one */
export function waitingForParents(open: readonly ParentJob[]): string {
  const named = open.slice(0, NAMED_MAX).map(({ id, status }) => `${id} (${status})`);
  const more = open.length > NAMED_MAX ? [`${open.length - NAMED_MAX} more`] : [];
  return `waiting for ${[...named, ...more].join(', ')} to succeed`;
}

/** Why a job that waited for this parent is cancelled. */
export function skippedFailure(parent: ParentJob): Failure {
  const how = parent.status === 'failed' ? 'has failed' : 'was cancelled';
  return {
    class: 'user',
    code: 'parent_not_succeeded',
    message: `skipped: job ${parent.id}, after which it was to run, ${how}. Retry that one, then this one with its new id in 'after'`,
    param: 'after',
    logTail: [],
  };
}

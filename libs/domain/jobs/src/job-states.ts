import { TunefleetError } from '@tunefleet/foundation';

/** Public job states (OpenAI's names). `paused` and the rest of the user controls use the same table. */
export type JobStatus = 'validating_files' | 'queued' | 'running' | 'paused' | 'succeeded' | 'failed' | 'cancelled';

/** Everything that can happen to a job's status. */
export type JobTransition =
  | 'validated'
  | 'placed'
  | 'requeued'
  | 'succeeded'
  | 'failed'
  | 'cancelled'
  | 'paused'
  | 'resumed';

/** The legal state changes; the only place that knows them. Absent = illegal. */
export const jobTransitions: Readonly<Record<JobStatus, Partial<Record<JobTransition, JobStatus>>>> = {
  validating_files: { validated: 'queued', failed: 'failed', cancelled: 'cancelled' },
  queued: { placed: 'running', failed: 'failed', cancelled: 'cancelled', paused: 'paused' },
  running: {
    succeeded: 'succeeded',
    failed: 'failed',
    cancelled: 'cancelled',
    requeued: 'queued',
    paused: 'paused',
  },
  paused: { resumed: 'queued', failed: 'failed', cancelled: 'cancelled' },
  succeeded: {},
  failed: {},
  cancelled: {},
};

export function isTerminal(status: JobStatus): boolean {
  return Object.keys(jobTransitions[status]).length === 0;
}

/** States from which the transition is legal, for conditional updates (`where status in …`). */
export function sourcesOf(transition: JobTransition): JobStatus[] {
  return (Object.keys(jobTransitions) as JobStatus[]).filter((from) => jobTransitions[from][transition] !== undefined);
}

/** @throws illegal_transition naming both the state and what was asked. */
export function nextStatus(from: JobStatus, transition: JobTransition): JobStatus {
  const to = jobTransitions[from][transition];
  if (to === undefined) {
    throw new TunefleetError('illegal_transition', `a job that is ${from} cannot be ${transition}`, {
      details: { from, transition },
    });
  }
  return to;
}

import type { StopReason } from '@tunefleet/domain-jobs';
import type { AttemptKey, AttemptOutcome } from '@tunefleet/ports';
import type { Transaction } from '../database/database';

/** The attempt and its job under lock (job first, then attempt), as they were when the lock was had. */
export interface Fence {
  /** True: the epoch is the job's own, the job runs, and the attempt has not ended. What the worker says counts. */
  readonly live: boolean;
  readonly finished: boolean;
  readonly outcome: AttemptOutcome | null;
  readonly lastSeq: number;
  readonly workerId: string;
  /** The lease has run out, or the worker has come back as another process: nobody can be running this any more. */
  readonly abandoned: boolean;
  readonly jobKind: string;
  readonly teamId: string;
  readonly step: number;
  readonly totalSteps: number | null;
  /** Why the attempt was asked to hand the job back. */
  readonly stopReason: StopReason | null;
}

interface JobRow {
  readonly status: string;
  readonly epoch: number;
  readonly kind: string;
  readonly team_id: string;
  readonly step: number;
  readonly total_steps: number | null;
  readonly stop_reason: StopReason | null;
}

interface AttemptRow {
  readonly status: string;
  readonly outcome: AttemptOutcome | null;
  readonly last_seq: bigint;
  readonly worker_id: string;
  readonly abandoned: boolean;
}

/** Null: no such attempt of that job at that epoch. */
export async function lockFence(tx: Transaction, key: AttemptKey): Promise<Fence | null> {
  const [job] = await tx.$queryRaw<JobRow[]>`
    select status, epoch, kind, team_id, step, total_steps, stop_reason from job where id = ${key.jobId} for no key update`;
  const [attempt] = await tx.$queryRaw<AttemptRow[]>`
    select a.status, a.outcome, a.last_seq, a.worker_id,
      a.lease_expires_at <= clock_timestamp() or w.boot_id <> a.worker_boot_id as abandoned
    from attempt a join worker w on w.id = a.worker_id
    where a.id = ${key.attemptId} and a.job_id = ${key.jobId} and a.epoch = ${key.epoch}
    for no key update of a`;
  if (job === undefined || attempt === undefined) return null;
  const finished = attempt.status === 'finished';
  return {
    live: !finished && job.status === 'running' && job.epoch === key.epoch,
    finished,
    outcome: attempt.outcome,
    lastSeq: Number(attempt.last_seq),
    workerId: attempt.worker_id,
    abandoned: attempt.abandoned,
    jobKind: job.kind,
    teamId: job.team_id,
    step: job.step,
    totalSteps: job.total_steps,
    stopReason: job.stop_reason,
  };
}

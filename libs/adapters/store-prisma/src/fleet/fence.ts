import type { StopReason } from '@tunefleet/domain-jobs';
import type { AttemptKey, AttemptOutcome } from '@tunefleet/ports';
import type { Statements } from '../database/statements';

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

interface FenceRow {
  readonly job_status: string;
  readonly job_epoch: number;
  readonly kind: string;
  readonly team_id: string;
  readonly step: number;
  readonly total_steps: number | null;
  readonly stop_reason: StopReason | null;
  readonly status: string;
  readonly outcome: AttemptOutcome | null;
  readonly last_seq: bigint;
  readonly worker_id: string;
  readonly abandoned: boolean;
}

/** Null: no such attempt of that job at that epoch. */
export async function lockFence(tx: Statements, key: AttemptKey): Promise<Fence | null> {
  // The attempt is locked on top of the join, so after its job. Of rows that change while a lock is waited for, the new ones are told.
  const [row] = await tx.$queryRaw<FenceRow[]>`
    with j as materialized (select id, status, epoch, kind, team_id, step, total_steps, stop_reason from job where id = ${key.jobId} for no key update)
    select j.status as job_status, j.epoch as job_epoch, j.kind, j.team_id, j.step, j.total_steps, j.stop_reason, a.status, a.outcome, a.last_seq, a.worker_id,
      a.lease_expires_at <= clock_timestamp() or w.boot_id <> a.worker_boot_id as abandoned
    from j join attempt a on a.job_id = j.id join worker w on w.id = a.worker_id
    where a.id = ${key.attemptId} and a.epoch = ${key.epoch}
    for no key update of a`;
  if (row === undefined) return null;
  const finished = row.status === 'finished';
  return {
    live: !finished && row.job_status === 'running' && row.job_epoch === key.epoch,
    finished,
    outcome: row.outcome,
    lastSeq: Number(row.last_seq),
    workerId: row.worker_id,
    abandoned: row.abandoned,
    jobKind: row.kind,
    teamId: row.team_id,
    step: row.step,
    totalSteps: row.total_steps,
    stopReason: row.stop_reason,
  };
}

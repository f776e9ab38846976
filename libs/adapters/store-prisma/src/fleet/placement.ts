import type { Placement } from '@tunefleet/domain-scheduling';
import { invariant, newId } from '@tunefleet/foundation';
import type { AttemptRecord, FleetStore } from '@tunefleet/ports';
import { inMs } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { isUniqueViolation } from '../database/database-errors';
import { announcement } from '../database/wake-channel';
import { preempt } from './preempting';
import { readSnapshot } from './snapshot';
import { noteWaiting } from './waiting-notes';

type PlacementMethods = Pick<FleetStore, 'schedulingSnapshot' | 'place' | 'noteWaiting' | 'preempt'>;

export function placementMethods(db: Database): PlacementMethods {
  return {
    schedulingSnapshot: (limit) => readSnapshot(db, limit),

    place: async (placement, leaseMs) => {
      try {
        return await db.transaction((tx) => place(tx, placement, leaseMs));
      } catch (error) {
        // The indexes that allow one live attempt per job and worker had the last word.
        if (isUniqueViolation(error)) return null;
        throw error;
      }
    },

    noteWaiting: (waiting) => noteWaiting(db, waiting),

    preempt: (preemption) => preempt(db, preemption),
  };
}

async function place(tx: Transaction, placement: Placement, leaseMs: number): Promise<AttemptRecord | null> {
  const [worker] = await tx.$queryRaw<{ name: string }[]>`
    select name from worker
    where id = ${placement.workerId} and session_id = ${placement.workerSessionId} and boot_id = ${placement.workerBootId}
      and status = 'online' and not cordoned and credit > 0
    for update`;
  if (worker === undefined) return null;
  // Whether somebody has them already is looked at here to be told early: the indexes have the last word.
  const [job] = await tx.$queryRaw<{ epoch: number; started: boolean }[]>`
    select epoch, started_at is not null as started from job
    where id = ${placement.jobId} and status = 'queued' and epoch = ${placement.jobEpoch}
      and (not_before is null or not_before <= clock_timestamp())
      and not exists (select 1 from attempt where status <> 'finished' and (worker_id = ${placement.workerId} or job_id = ${placement.jobId}))
    for no key update`;
  if (job === undefined) return null;
  return writePlacement(tx, { placement, leaseMs, epoch: job.epoch + 1, message: job.started ? `Job started again on worker ${worker.name}` : `Job started on worker ${worker.name}` });
}

interface Write {
  readonly placement: Placement;
  readonly leaseMs: number;
  readonly epoch: number;
  readonly message: string;
}

/** All of it in one statement: every round trip is time that a worker waits. The caller holds the locks of worker and job. */
async function writePlacement(tx: Transaction, { placement, leaseMs, epoch, message }: Write): Promise<AttemptRecord> {
  const { jobId, workerId, workerBootId, resumeCheckpointId } = placement;
  const id = newId('attempt');
  const [row] = await tx.$queryRaw<{ lease_expires_at: Date; assigned_at: Date }[]>`
    with placed as (
      insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at, resume_checkpoint_id)
      values (${id}, ${jobId}, ${epoch}::int, ${workerId}, ${workerBootId}, ${inMs(leaseMs)}, ${resumeCheckpointId})
      returning lease_expires_at, assigned_at),
    started as (
      update job set status = 'running', epoch = ${epoch}::int, started_at = coalesce(started_at, clock_timestamp()),
        not_before = null, waiting_reason = null, waiting_code = null, queue_position = null, estimated_start = null, locality_since = null
      where id = ${jobId}),
    spent as (update worker set credit = credit - 1 where id = ${workerId}),
    told as (insert into job_event (job_id, level, type, message) values (${jobId}, 'info', 'message', ${message}))
    select placed.*, ${announcement(`worker:${workerId}`)}::text from placed`;
  invariant(row !== undefined, 'a placement was not written');
  return {
    ...{ id, jobId, epoch, workerId, workerBootId, resumeCheckpointId, status: 'assigned', outcome: null, leaseExpiresAt: row.lease_expires_at, assignedAt: row.assigned_at },
    ...{ lastSeq: 0, failure: null, stopReason: null, preemptedForJobId: null, step: 0, steppedAt: null, microBatchSize: null, stuckAt: null, acknowledgedAt: null, finishedAt: null },
  };
}

import type { Placement } from '@tunefleet/domain-scheduling';
import { newId } from '@tunefleet/foundation';
import type { AttemptRecord, FleetStore } from '@tunefleet/ports';
import { inMs } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { isUniqueViolation } from '../database/database-errors';
import { announce } from '../database/wake-channel';
import { insertEvents } from '../records/job-events';
import { attemptRecord } from '../records/mapping';
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
  const [job] = await tx.$queryRaw<{ epoch: number; started: boolean }[]>`
    select epoch, started_at is not null as started from job
    where id = ${placement.jobId} and status = 'queued' and epoch = ${placement.jobEpoch}
      and (not_before is null or not_before <= clock_timestamp())
    for no key update`;
  if (job === undefined) return null;
  const [live] = await tx.$queryRaw<unknown[]>`
    select 1 as found from attempt where status <> 'finished' and (worker_id = ${placement.workerId} or job_id = ${placement.jobId}) limit 1`;
  if (live !== undefined) return null;

  const id = newId('attempt');
  await tx.$executeRaw`
    insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at, resume_checkpoint_id)
    values (${id}, ${placement.jobId}, ${job.epoch + 1}, ${placement.workerId}, ${placement.workerBootId},
      ${inMs(leaseMs)}, ${placement.resumeCheckpointId})`;
  await tx.$executeRaw`
    update job set status = 'running', epoch = ${job.epoch + 1}, started_at = coalesce(started_at, clock_timestamp()),
      not_before = null, waiting_reason = null, waiting_code = null, queue_position = null, estimated_start = null, locality_since = null
    where id = ${placement.jobId}`;
  await tx.$executeRaw`update worker set credit = credit - 1 where id = ${placement.workerId}`;
  const message = job.started ? `Job started again on worker ${worker.name}` : `Job started on worker ${worker.name}`;
  await insertEvents(tx, placement.jobId, [{ level: 'info', type: 'message', message }]);
  await announce(tx, `worker:${placement.workerId}`);
  return attemptRecord(await tx.attempt.findUniqueOrThrow({ where: { id } }));
}

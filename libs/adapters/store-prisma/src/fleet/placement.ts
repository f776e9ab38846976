import type { Placement } from '@tunefleet/domain-scheduling';
import { newId } from '@tunefleet/foundation';
import type { AttemptRecord, FleetStore } from '@tunefleet/ports';
import { batched } from '../database/batched';
import type { Database } from '../database/database';
import { isUniqueViolation } from '../database/database-errors';
import type { Statements } from '../database/statements';
import { WAKE_CHANNEL } from '../database/wake-channel';
import { Prisma } from '../generated/client';
import { lockWorkerTime } from './charged-seconds';
import { preempt } from './preempting';
import { readSnapshot } from './snapshot';
import { noteWaiting } from './waiting-notes';

type PlacementMethods = Pick<FleetStore, 'schedulingSnapshot' | 'place' | 'noteWaiting' | 'preempt'>;

export function placementMethods(db: Database): PlacementMethods {
  return {
    schedulingSnapshot: (limit) => readSnapshot(db, limit),

    // Those asked for in one turn of the event loop are written together.
    place: batched((wanted: readonly Wanted[]) => placeAll(db, wanted), (placement: Placement, leaseMs: number) => ({ placement, leaseMs })),

    noteWaiting: (waiting) => noteWaiting(db, waiting),

    preempt: (preemption) => preempt(db, preemption),
  };
}

interface Wanted {
  readonly placement: Placement;
  readonly leaseMs: number;
}

async function placeAll(db: Database, wanted: readonly Wanted[]): Promise<readonly (AttemptRecord | null)[]> {
  try {
    // Where several may be, who is there has to be looked at under the worker's lock, by a later statement than the one that waits for it. A single
    // slot is guarded by its index.
    if (wanted.some(({ placement }) => placement.workerSlots > 1)) {
      return await db.atomically(async (tx) => {
        await lockWorkers(tx, wanted);
        return writePlacements(tx, wanted);
      });
    }
    return await db.repeating(() => writePlacements(db.statements, wanted));
  } catch (error) {
    // The indexes that allow one live attempt per job and slot, and the guard of who may share a worker, had the last word.
    if (!isUniqueViolation(error)) throw error;
    if (wanted.length === 1) return [null];
    return (await Promise.all(wanted.map((one) => placeAll(db, [one])))).flat();
  }
}

async function lockWorkers(tx: Statements, wanted: readonly Wanted[]): Promise<void> {
  await tx.$queryRaw`select ${lockWorkerTime(Prisma.sql`id`)}::text from worker where id = any(${wanted.map(({ placement }) => placement.workerId)}::text[]) order by id for update`;
}

interface PlacedRow {
  readonly id: string;
  readonly epoch: number;
  readonly slot: number;
  readonly lease_expires_at: Date;
  readonly assigned_at: Date;
}

/**
 * All of it in one statement: every round trip is time that workers wait. All workers are locked before any job (the jobs are sorted first), each by its
 * id; what has changed by the time a lock is had is looked at again. Whether somebody has worker or job already is looked at as well, to be told early.
 */
async function writePlacements(db: Statements, wanted: readonly Wanted[]): Promise<readonly (AttemptRecord | null)[]> {
  const ids = wanted.map(() => newId('attempt'));
  const list = (of: (placement: Placement) => string): string[] => wanted.map(({ placement }) => of(placement));
  const rows = await db.$queryRaw<PlacedRow[]>`
    with wanted as materialized (
      select id, job_id, job_epoch, worker_id, session_id, boot_id, nullif(checkpoint_id, '') as checkpoint_id, string_to_array(beside, ' ') as beside, lease_ms, turn
      from unnest(${ids}::text[], ${list(({ jobId }) => jobId)}::text[], ${wanted.map(({ placement }) => placement.jobEpoch)}::int[], ${list(({ workerId }) => workerId)}::text[],
        ${list(({ workerSessionId }) => workerSessionId)}::text[], ${list(({ workerBootId }) => workerBootId)}::text[], ${list(({ resumeCheckpointId }) => resumeCheckpointId ?? '')}::text[],
        ${list(({ besideJobIds }) => besideJobIds.join(' '))}::text[], ${wanted.map(({ leaseMs }) => leaseMs)}::float8[])
        with ordinality as t (id, job_id, job_epoch, worker_id, session_id, boot_id, checkpoint_id, beside, lease_ms, turn)),
    free as materialized (
      select wanted.id as attempt_id, w.id, w.name, w.slots, w.credit from worker w join wanted on wanted.worker_id = w.id
      where w.session_id = wanted.session_id and w.boot_id = wanted.boot_id and w.status = 'online' and not w.cordoned and w.credit > 0
      order by w.id for update of w),
    due as materialized (
      select wanted.*, free.name, free.credit, j.epoch + 1 as epoch, j.started_at is not null as started
      from wanted join free on free.attempt_id = wanted.id join job j on j.id = wanted.job_id
      where j.epoch = wanted.job_epoch and j.status = 'queued' and (j.not_before is null or j.not_before <= clock_timestamp())
        and not exists (
          select 1 from attempt a join job there on there.id = a.job_id
          where a.status <> 'finished' and a.worker_id = wanted.worker_id
            and (a.job_id <> all(wanted.beside) or a.preempted_for_job_id is not null or j.share_key is null or there.share_key is distinct from j.share_key))
        and not exists (select 1 from attempt a where a.status <> 'finished' and a.job_id = j.id)
      order by j.id for no key update of j),
    open as (
      select w.id as worker_id, n as slot, row_number() over (partition by w.id order by n) as place
      from (select distinct id, slots from free) w cross join lateral generate_series(0, w.slots - 1) as n
      where not exists (select 1 from attempt a where a.status <> 'finished' and a.worker_id = w.id and a.slot = n)),
    seated as materialized (
      select due.*, open.slot
      from (select *, row_number() over (partition by worker_id order by turn) as place from due) due join open using (worker_id, place)
      where place <= credit),
    placed as (
      insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, slot, lease_expires_at, resume_checkpoint_id)
      select id, job_id, epoch, worker_id, boot_id, slot, clock_timestamp() + make_interval(secs => lease_ms / 1000), checkpoint_id from seated
      returning id, epoch, worker_id, slot, lease_expires_at, assigned_at),
    started as (
      update job set status = 'running', epoch = seated.epoch, started_at = coalesce(job.started_at, clock_timestamp()),
        not_before = null, waiting_reason = null, waiting_code = null, queue_position = null, estimated_start = null, locality_since = null
      from seated where job.id = seated.job_id),
    spent as (update worker set credit = worker.credit - s.jobs from (select worker_id, count(*)::int as jobs from seated group by worker_id) s where worker.id = s.worker_id),
    told as (
      insert into job_event (job_id, level, type, message)
      select job_id, 'info', 'message', (case when started then 'Job started again on worker ' else 'Job started on worker ' end) || name from seated)
    select id, epoch, slot, lease_expires_at, assigned_at, pg_notify(${WAKE_CHANNEL}, 'worker:' || worker_id)::text from placed`;
  const placed = new Map(rows.map((row) => [row.id, row]));
  return wanted.map(({ placement }, index) => {
    const row = placed.get(ids[index] as string);
    return row === undefined ? null : attemptOf(placement, row);
  });
}

function attemptOf({ jobId, workerId, workerBootId, resumeCheckpointId }: Placement, { id, epoch, slot, lease_expires_at, assigned_at }: PlacedRow): AttemptRecord {
  return {
    ...{ id, jobId, epoch, workerId, workerBootId, slot, resumeCheckpointId, status: 'assigned', outcome: null, leaseExpiresAt: lease_expires_at, assignedAt: assigned_at },
    ...{ lastSeq: 0, failure: null, stopReason: null, preemptedForJobId: null, step: 0, steppedAt: null, microBatchSize: null, stuckAt: null, acknowledgedAt: null, finishedAt: null },
  };
}

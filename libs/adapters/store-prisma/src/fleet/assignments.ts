import { statusAfterStop } from '@tunefleet/domain-jobs';
import type { AttemptKey, AttemptRecord, FencedResult, FleetStore } from '@tunefleet/ports';
import { agoMs, inMs } from '../database/clock';
import type { Database } from '../database/database';
import type { Statements } from '../database/statements';
import { announce } from '../database/wake-channel';
import { Prisma, type Attempt, type Checkpoint, type Job } from '../generated/client';
import { attemptColumns, jobColumns } from '../records/columns';
import { insertEvents } from '../records/job-events';
import { attemptRecord, checkpointRecord, jobRecord } from '../records/mapping';
import { lockWorkerTime } from './charged-seconds';
import { lockFence } from './fence';

type AssignmentMethods = Pick<
  FleetStore,
  | 'listUnacknowledged'
  | 'listLiveAttempts'
  | 'acknowledge'
  | 'revoke'
  | 'renewLease'
  | 'isLive'
  | 'listExpired'
  | 'listUnacknowledgedOlderThan'
  | 'latestCheckpoint'
  | 'getJob'
>;

/** Between the placement of an attempt and its end: what the worker is owed, and who holds what for how long. */
export function assignmentMethods(db: Database): AssignmentMethods {
  const { prisma, statements } = db;
  return {
    listUnacknowledged: (workerId, leaseMs = 0) =>
      db.repeating(async () => {
        const rows = await statements.$queryRaw<(Job & { readonly attemptId: string; readonly resumeCheckpointId: string | null })[]>`
          update attempt a set lease_expires_at = ${renewed(leaseMs)}
          from job j, worker w
          where a.worker_id = ${workerId} and a.status = 'assigned' and j.id = a.job_id and j.epoch = a.epoch and j.status = 'running' and j.stop_reason is null
            and w.id = a.worker_id and w.boot_id = a.worker_boot_id
          returning ${jobColumns}, a.id as "attemptId", a.resume_checkpoint_id as "resumeCheckpointId"`;
        return Promise.all(
          rows.map(async ({ attemptId, resumeCheckpointId, ...job }) => ({ key: { jobId: job.id, attemptId, epoch: job.epoch }, job: jobRecord(job), resume: await resumeOf(db, resumeCheckpointId) })),
        );
      }),

    listLiveAttempts: (workerId) =>
      db.repeating(async () =>
        (await statements.$queryRaw<Attempt[]>`select ${attemptColumns} from attempt a where a.worker_id = ${workerId} and a.status <> 'finished'`).map(attemptRecord),
      ),

    acknowledge: (key, leaseMs = 0) =>
      db.repeating(async () => {
        const taken = await statements.$executeRaw`
          with j as materialized (select id from job where id = ${key.jobId} and status = 'running' and epoch = ${key.epoch}::int for no key update)
          update attempt a set status = 'running', acknowledged_at = coalesce(a.acknowledged_at, clock_timestamp()), lease_expires_at = ${renewed(leaseMs)}
          from j where a.id = ${key.attemptId} and a.job_id = j.id and a.epoch = ${key.epoch}::int and a.status <> 'finished'`;
        return taken > 0 ? 'applied' : 'stale';
      }),

    revoke: (key, reason) => db.atomically((tx) => revoke(tx, key, reason)),

    renewLease: (key, leaseMs) =>
      db.repeating(async () => {
        // Liveness is the attempt's row, not the time: a late renewal stands as long as nobody has ended the attempt.
        const count = await statements.$executeRaw`
          update attempt a set lease_expires_at = ${renewed(leaseMs)}
          from job j
          where a.id = ${key.attemptId} and a.job_id = ${key.jobId} and a.epoch = ${key.epoch} and a.status <> 'finished'
            and j.id = a.job_id and j.epoch = a.epoch and j.status = 'running'`;
        return count > 0 ? 'applied' : 'stale';
      }),

    isLive: (key) =>
      db.repeating(async () => {
        const rows = await statements.$queryRaw<unknown[]>`
          select 1 as found from attempt a join job j on j.id = a.job_id
          where a.id = ${key.attemptId} and a.job_id = ${key.jobId} and a.epoch = ${key.epoch} and a.status <> 'finished'
            and j.epoch = a.epoch and j.status = 'running'`;
        return rows.length > 0;
      }),

    listExpired: (limit) =>
      overdue(db, () => prisma.$queryRaw<{ id: string }[]>`
        select id from attempt where status <> 'finished' and lease_expires_at <= clock_timestamp() order by lease_expires_at limit ${limit}`),

    listUnacknowledgedOlderThan: (ms, limit) =>
      overdue(db, () => prisma.$queryRaw<{ id: string }[]>`
        select id from attempt
        where status = 'assigned' and assigned_at < ${agoMs(ms)}
        order by assigned_at limit ${limit}`),

    latestCheckpoint: (jobId) =>
      db.repeating(async () => {
        const row = await prisma.checkpoint.findFirst({ where: { jobId }, orderBy: { step: 'desc' } });
        return row && checkpointRecord(row);
      }),

    getJob: (id) =>
      db.repeating(async () => {
        const [row] = await statements.$queryRaw<Job[]>`select ${jobColumns} from job j where j.id = ${id}`;
        return row === undefined ? null : jobRecord(row);
      }),
  };
}

/** Of an attempt `a`; never shortens. */
const renewed = (leaseMs: number): Prisma.Sql => Prisma.sql`greatest(a.lease_expires_at, ${inMs(leaseMs)})`;

async function revoke(tx: Statements, key: AttemptKey, reason: string): Promise<FencedResult> {
  const fence = await lockFence(tx, key);
  if (fence === null || fence.finished) return fence?.outcome === 'revoked' ? 'applied' : 'stale';
  await tx.$executeRaw`
    with mine as materialized (select worker_id, ${lockWorkerTime(Prisma.sql`worker_id`)} from attempt where id = ${key.attemptId})
    update attempt set status = 'finished', outcome = 'revoked', finished_at = clock_timestamp() from mine where id = ${key.attemptId}`;
  await announce(tx, 'schedule');
  if (!fence.live) return 'stale';
  const status = statusAfterStop(fence.stopReason);
  await tx.$executeRaw`update job set status = ${status}, stop_reason = null, stop_deadline = null where id = ${key.jobId}`;
  await insertEvents(tx, key.jobId, [{ level: 'warn', type: 'message', message: `The worker did not take the job (${reason}); it is ${status === 'paused' ? 'paused' : 'back in the queue'}` }]);
  return 'applied';
}

async function overdue(db: Database, find: () => Promise<{ id: string }[]>): ReturnType<FleetStore['listExpired']> {
  return db.repeating(async () => {
    const ids = (await find()).map(({ id }) => id);
    const rows: (Attempt & { job: Job })[] = await db.prisma.attempt.findMany({ where: { id: { in: ids } }, include: { job: true } });
    return rows
      .sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id))
      .map(({ job, ...attempt }): { attempt: AttemptRecord; job: ReturnType<typeof jobRecord> } => ({ attempt: attemptRecord(attempt), job: jobRecord(job) }));
  });
}

async function resumeOf(db: Database, id: string | null): Promise<ReturnType<typeof checkpointRecord> | null> {
  if (id === null) return null;
  const row: Checkpoint | null = await db.prisma.checkpoint.findUnique({ where: { id } });
  return row && checkpointRecord(row);
}

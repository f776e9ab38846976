import { statusAfterStop } from '@tunefleet/domain-jobs';
import type { AttemptKey, AttemptRecord, FencedResult, FleetStore } from '@tunefleet/ports';
import { agoMs, inMs } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { announce } from '../database/wake-channel';
import type { Attempt, Checkpoint, Job } from '../generated/client';
import { insertEvents } from '../records/job-events';
import { attemptRecord, checkpointRecord, jobRecord } from '../records/mapping';
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
  const { prisma } = db;
  return {
    listUnacknowledged: (workerId) =>
      db.repeating(async () => {
        const rows = await prisma.attempt.findMany({
          where: { workerId, status: 'assigned', job: { status: 'running', stopReason: null } },
          include: { job: true, worker: { select: { bootId: true } } },
        });
        const owed = rows.filter((row) => row.job.epoch === row.epoch && row.worker.bootId === row.workerBootId);
        return Promise.all(owed.map(async (row) => ({ key: keyOf(row), job: jobRecord(row.job), resume: await resumeOf(db, row) })));
      }),

    listLiveAttempts: (workerId) =>
      db.repeating(async () => (await prisma.attempt.findMany({ where: { workerId, status: { not: 'finished' } } })).map(attemptRecord)),

    acknowledge: (key) =>
      db.transaction(async (tx) => {
        const fence = await lockFence(tx, key);
        if (fence === null || !fence.live) return 'stale';
        await tx.$executeRaw`
          update attempt set status = 'running', acknowledged_at = clock_timestamp() where id = ${key.attemptId} and status = 'assigned'`;
        return 'applied';
      }),

    revoke: (key, reason) => db.transaction((tx) => revoke(tx, key, reason)),

    renewLease: (key, leaseMs) =>
      db.repeating(async () => {
        // Liveness is the attempt's row, not the time: a late renewal stands as long as nobody has ended the attempt. Never shortens.
        const renewed = await prisma.$executeRaw`
          update attempt a set lease_expires_at = greatest(a.lease_expires_at, ${inMs(leaseMs)})
          from job j
          where a.id = ${key.attemptId} and a.job_id = ${key.jobId} and a.epoch = ${key.epoch} and a.status <> 'finished'
            and j.id = a.job_id and j.epoch = a.epoch and j.status = 'running'`;
        return renewed > 0 ? 'applied' : 'stale';
      }),

    isLive: (key) =>
      db.repeating(async () => {
        const rows = await prisma.$queryRaw<unknown[]>`
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
        const row = await prisma.job.findUnique({ where: { id } });
        return row && jobRecord(row);
      }),
  };
}

async function revoke(tx: Transaction, key: AttemptKey, reason: string): Promise<FencedResult> {
  const fence = await lockFence(tx, key);
  if (fence === null || fence.finished) return fence?.outcome === 'revoked' ? 'applied' : 'stale';
  await tx.$executeRaw`
    update attempt set status = 'finished', outcome = 'revoked', finished_at = clock_timestamp() where id = ${key.attemptId}`;
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

async function resumeOf(db: Database, attempt: Attempt): Promise<ReturnType<typeof checkpointRecord> | null> {
  if (attempt.resumeCheckpointId === null) return null;
  const row: Checkpoint | null = await db.prisma.checkpoint.findUnique({ where: { id: attempt.resumeCheckpointId } });
  return row && checkpointRecord(row);
}

function keyOf(attempt: Attempt): AttemptKey {
  return { jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch };
}

import type { AttemptRecord, FleetStore, QuietAttempt } from '@tunefleet/ports';
import { agoMs } from '../database/clock';
import type { Database } from '../database/database';
import { announce } from '../database/wake-channel';
import { explainWaiting, findOrphans, isUnblocked, skipDependents } from '../records/dependents';
import { insertEvents, lockJob } from '../records/job-events';
import { attemptRecord } from '../records/mapping';
import { lockFence } from './fence';

type WatchdogMethods = Pick<FleetStore, 'listInfraFailures' | 'cordonWorker' | 'listQuiet' | 'noteStuck' | 'skipOrphans' | 'explainDependents' | 'listOverdueStops' | 'listUnevaluated'>;

/** Steps whose times the usual one is told from. */
const PACE_STEPS = 51;
const PACE_STEPS_MIN = 5;
/** Attempts that ran beside each other and failed within this time of each other: one failure, of what they shared. */
const TOGETHER_SECONDS = 60;
/** Schedulers look at no more of a queue; what is behind may be told nothing for long. */
const QUEUE_LOOKED_AT = 10_000;

/** What the reconciler needs to see of workers and jobs that do not go on. */
export function watchdogMethods(db: Database): WatchdogMethods {
  const { prisma } = db;
  return {
    listInfraFailures: (workerId, withinMs) =>
      db.repeating(async () => {
        const rows = await prisma.$queryRaw<{ job_id: string; code: string }[]>`
          with failed as (
            select a.id, a.job_id, a.assigned_at, a.finished_at, coalesce(a.failure ->> 'code', a.outcome) as code from attempt a join worker w on w.id = a.worker_id
            where a.worker_id = ${workerId} and a.outcome in ('failed', 'lost') and a.finished_at > greatest(${agoMs(withinMs)}, w.uncordoned_at)
              and coalesce(a.failure ->> 'class', 'infrastructure') = 'infrastructure')
          select f.job_id, f.code from failed f
          where not exists (
            select 1 from failed before
            where (before.finished_at, before.id) < (f.finished_at, f.id) and before.finished_at > f.assigned_at and before.finished_at > f.finished_at - make_interval(secs => ${TOGETHER_SECONDS}::float8))
          order by f.finished_at`;
        return rows.map(({ job_id, code }) => ({ jobId: job_id, code }));
      }),

    cordonWorker: (workerId, reason) =>
      db.repeating(async () => (await prisma.$executeRaw`update worker set cordoned = true, cordon_reason = ${reason} where id = ${workerId} and not cordoned`) > 0),

    listQuiet: (quietMs, limit) =>
      db.repeating(async () => {
        const rows = await prisma.$queryRaw<{ id: string; since_ms: number; median_ms: number | null }[]>`
          select a.id, (extract(epoch from clock_timestamp() - a.stepped_at) * 1000)::float8 as since_ms,
            (select case when count(*) < ${PACE_STEPS_MIN - 1}::int then null else percentile_cont(0.5) within group (order by took_ms) end
             from (select (extract(epoch from told - lag(told) over (order by step)) * 1000)::float8 as took_ms
                   from (select m.step, min(m.created_at) as told from metric_point m where m.job_id = a.job_id and m.epoch = a.epoch and m.step > a.step - ${PACE_STEPS}::int
                         group by m.step) steps) paces
             where took_ms is not null) as median_ms
          from attempt a join job j on j.id = a.job_id and j.epoch = a.epoch
          where a.status = 'running' and j.status = 'running' and j.phase = 'train' and j.stop_reason is null and a.stepped_at < ${agoMs(quietMs)}
          order by a.stepped_at limit ${limit}`;
        const attempts = await prisma.attempt.findMany({ where: { id: { in: rows.map(({ id }) => id) } } });
        return rows.flatMap(({ id, since_ms, median_ms }): QuietAttempt[] => {
          const row = attempts.find((attempt) => attempt.id === id);
          const attempt: AttemptRecord | undefined = row && attemptRecord(row);
          return attempt === undefined ? [] : [{ attempt, sinceStepMs: since_ms, medianStepMs: median_ms }];
        });
      }),

    noteStuck: (key, message) =>
      db.transaction(async (tx) => {
        const fence = await lockFence(tx, key);
        if (fence?.live !== true) return false;
        const noted = await tx.$executeRaw`update attempt set stuck_at = clock_timestamp() where id = ${key.attemptId} and stuck_at is null`;
        if (noted > 0) await insertEvents(tx, key.jobId, [{ level: 'warn', type: 'message', message: `Stuck: ${message}`, data: { code: 'stuck' } }]);
        return noted > 0;
      }),

    skipOrphans: async (limit) => {
      const parents = [...new Set((await db.repeating(() => findOrphans(prisma, limit))).map(({ parent_id }) => parent_id))];
      for (const parent of parents) {
        await db.transaction(async (tx) => {
          await lockJob(tx, parent);
          await skipDependents(tx, parent);
          await announce(tx, 'schedule');
        });
      }
      return parents;
    },

    listOverdueStops: async (overdueMs, limit) =>
      db.repeating(async () => {
        const rows = await prisma.$queryRaw<{ id: string }[]>`
          select a.id from job j join attempt a on a.job_id = j.id and a.epoch = j.epoch
          where j.status = 'running' and j.stop_reason is not null and j.stop_deadline < ${agoMs(overdueMs)} and a.status <> 'finished'
          order by j.stop_deadline limit ${limit}`;
        return (await prisma.attempt.findMany({ where: { id: { in: rows.map(({ id }) => id) } }, orderBy: { id: 'asc' } })).map(attemptRecord);
      }),

    listUnevaluated: (olderThanMs, limit) =>
      db.repeating(async () => {
        // A job that comes back keeps its place in the queue: it waits since its last attempt ended.
        const rows = await prisma.$queryRaw<{ id: string }[]>`
          select j.id from job j
          where j.status = 'queued' and j.waiting_code is null and greatest(j.queued_at, j.not_before) < ${agoMs(olderThanMs)} and ${isUnblocked}
            and not exists (select 1 from attempt a where a.job_id = j.id and coalesce(a.finished_at, clock_timestamp()) >= ${agoMs(olderThanMs)})
            and (select count(*) from (select 1 from job where status = 'queued' limit ${QUEUE_LOOKED_AT + 1}) q) <= ${QUEUE_LOOKED_AT}
          order by j.queued_at limit ${limit}`;
        return rows.map(({ id }) => id);
      }),

    explainDependents: (limit) => db.repeating(() => explainWaiting(prisma, { limit })),
  };
}

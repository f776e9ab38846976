import { Prisma } from '../generated/client';

/**
 * What attempt `a` is charged of the time between two moments of its life: of every second the nth part while n attempts are live on its worker, so that a worker's charges
 * are the time that anybody held it. Ends and beginnings on a worker that takes several jobs are in one order (`lockWorkerTime`): what is told once an attempt has
 * ended is told ever after.
 */
export const chargedSeconds = (from: Prisma.Sql, to: Prisma.Sql): Prisma.Sql => Prisma.sql`(
  select coalesce(sum(extract(epoch from span.ended - span.began) / span.live), 0)::float8
  from (
    select edge.at as began, lead(edge.at) over (order by edge.at) as ended, sum(edge.change) over (order by edge.at) as live
    from attempt o cross join lateral (values (greatest(o.assigned_at, ${from}), 1), (least(o.finished_at, ${to}), -1)) as edge (at, change)
    where ${from} < ${to} and o.worker_id = a.worker_id and o.assigned_at < ${to} and (o.status <> 'finished' or (o.status = 'finished' and o.finished_at > ${from}))
  ) span
  where span.ended > span.began)`;

/**
 * Waited for until the end of the transaction that begins or ends an attempt on a worker, before it reads the clock. Not the worker's row, which comes before jobs in the
 * order of locks.
 */
export const lockWorkerTime = (workerId: Prisma.Sql): Prisma.Sql => Prisma.sql`pg_advisory_xact_lock(hashtextextended(${workerId}, 0))`;

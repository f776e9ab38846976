import type { RecordStore, UsageDayRecord } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { Prisma } from '../generated/client';
import { toNumber } from './mapping';

interface UsageRow {
  readonly team: string;
  readonly day: string;
  readonly gpu_seconds: number;
  readonly wasted_gpu_seconds: number;
  readonly attempts: bigint;
}

/**
 * From the attempts themselves, so it agrees with the history of every job. Attempts that were taken back before they ran are nobody's use. What an attempt is charged
 * (`chargedSeconds`) is here the difference of a clock per worker, which goes at the nth part of the speed while n attempts are live: one pass over all of them.
 */
export function usageMethods(db: Database): Pick<RecordStore, 'usageByDay'> {
  return {
    usageByDay: ({ from, to, team }) =>
      db.repeating(async () => {
        const rows = await db.prisma.$queryRaw<UsageRow[]>`
          with held as (
            select j.team_id, a.id, a.worker_id, a.outcome is distinct from 'revoked' as counts, a.assigned_at as began, coalesce(a.finished_at, clock_timestamp()) as ended,
              case when a.status <> 'finished' or a.outcome = 'succeeded' then null
                else greatest(a.assigned_at, (select max(c.created_at) from checkpoint c where c.attempt_id = a.id)) end as lost_from
            from attempt a join job j on j.id = a.job_id
            where a.assigned_at < (${to}::date + 1)::timestamp at time zone 'utc'
              and coalesce(a.finished_at, clock_timestamp()) > ${from}::date::timestamp at time zone 'utc'
          ), day as (
            select d::date as day, d at time zone 'utc' as starts, (d + interval '1 day') at time zone 'utc' as ends
            from generate_series(${from}::date::timestamp, ${to}::date::timestamp, interval '1 day') d
          ), edge as (
            select held.team_id, held.id, held.worker_id, held.counts, day.day, e.kind, e.at, e.change
            from held join day on held.began < day.ends and held.ended > day.starts
              cross join lateral (values
                ('began', greatest(held.began, day.starts), 1),
                ('lost', case when held.lost_from < least(held.ended, day.ends) then greatest(held.lost_from, day.starts) end, 0),
                ('ended', least(held.ended, day.ends), -1)) as e (kind, at, change)
            where e.at is not null
          ), tick as (
            select edge.*, coalesce(extract(epoch from at - lag(at) over earlier) / nullif(sum(change) over (earlier groups between unbounded preceding and 1 preceding), 0), 0) as seconds
            from edge window earlier as (partition by worker_id order by at)
          ), clock as (
            select *, sum(seconds) over (partition by worker_id order by at)::float8 as reads from tick
          ), part as (
            select team_id, day, max(reads) filter (where kind = 'ended') - max(reads) filter (where kind = 'began') as charged,
              max(reads) filter (where kind = 'ended') - max(reads) filter (where kind = 'lost') as wasted
            from clock where counts group by team_id, day, id
          )
          select t.name as team, to_char(part.day, 'YYYY-MM-DD') as day, count(*) as attempts, sum(part.charged)::float8 as gpu_seconds, coalesce(sum(part.wasted), 0)::float8 as wasted_gpu_seconds
          from part join team t on t.id = part.team_id
          ${team === undefined ? Prisma.empty : Prisma.sql`where t.name = ${team}`}
          group by part.day, t.name order by part.day, t.name`;
        return rows.map(usageDayRecord);
      }),
  };
}

function usageDayRecord({ team, day, gpu_seconds: gpuSeconds, wasted_gpu_seconds: wastedGpuSeconds, attempts }: UsageRow): UsageDayRecord {
  return { team, day, gpuSeconds, wastedGpuSeconds, attempts: toNumber(attempts) };
}

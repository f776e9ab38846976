import type { RecordStore, UsageDayRecord } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { chargedSeconds } from '../fleet/charged-seconds';
import { Prisma } from '../generated/client';
import { toNumber } from './mapping';

interface UsageRow {
  readonly team: string;
  readonly day: string;
  readonly gpu_seconds: number;
  readonly wasted_gpu_seconds: number;
  readonly attempts: bigint;
}

const ENDED = Prisma.sql`least(a.ended, day.ends)`;

/** From the attempts themselves, so it agrees with the history of every job. Attempts that were taken back before they ran are nobody's use. */
export function usageMethods(db: Database): Pick<RecordStore, 'usageByDay'> {
  return {
    usageByDay: ({ from, to, team }) =>
      db.repeating(async () => {
        const rows = await db.prisma.$queryRaw<UsageRow[]>`
          with held as (
            select j.team_id, a.id, a.worker_id, a.assigned_at as began, coalesce(a.finished_at, clock_timestamp()) as ended,
              case when a.status <> 'finished' or a.outcome = 'succeeded' then null
                else greatest(a.assigned_at, (select max(c.created_at) from checkpoint c where c.attempt_id = a.id)) end as lost_from
            from attempt a join job j on j.id = a.job_id
            where a.outcome is distinct from 'revoked'
              and a.assigned_at < (${to}::date + 1)::timestamp at time zone 'utc'
              and coalesce(a.finished_at, clock_timestamp()) > ${from}::date::timestamp at time zone 'utc'
          ), day as (
            select d::date as day, d at time zone 'utc' as starts, (d + interval '1 day') at time zone 'utc' as ends
            from generate_series(${from}::date::timestamp, ${to}::date::timestamp, interval '1 day') d
          )
          select t.name as team, to_char(day.day, 'YYYY-MM-DD') as day, count(*) as attempts,
            sum(${chargedSeconds(Prisma.sql`greatest(a.began, day.starts)`, ENDED)})::float8 as gpu_seconds,
            coalesce(sum(${chargedSeconds(Prisma.sql`greatest(a.lost_from, day.starts)`, ENDED)}) filter (where a.lost_from is not null), 0)::float8 as wasted_gpu_seconds
          from held a join day on a.began < day.ends and a.ended > day.starts join team t on t.id = a.team_id
          ${team === undefined ? Prisma.empty : Prisma.sql`where t.name = ${team}`}
          group by day.day, t.name order by day.day, t.name`;
        return rows.map(usageDayRecord);
      }),
  };
}

function usageDayRecord({ team, day, gpu_seconds: gpuSeconds, wasted_gpu_seconds: wastedGpuSeconds, attempts }: UsageRow): UsageDayRecord {
  return { team, day, gpuSeconds, wastedGpuSeconds, attempts: toNumber(attempts) };
}

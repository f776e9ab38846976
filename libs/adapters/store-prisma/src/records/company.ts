import type { AttemptCompany, RecordStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { chargedSeconds } from '../fleet/charged-seconds';
import { Prisma } from '../generated/client';

interface CompanyRow {
  readonly id: string;
  readonly gpu_seconds: number;
  readonly beside: AttemptCompany['beside'];
}

/** An attempt that was taken back before it ran is nobody's company, and nobody's use. */
export function companyMethods(db: Database): Pick<RecordStore, 'listCompany'> {
  return {
    listCompany: (jobId) =>
      db.repeating(async () => {
        const rows = await db.statements.$queryRaw<CompanyRow[]>`
          with mine as materialized (
            select id, worker_id, status, outcome, assigned_at, coalesce(finished_at, clock_timestamp()) as ended from attempt where job_id = ${jobId})
          select a.id, case when a.outcome is distinct from 'revoked' then ${chargedSeconds(Prisma.sql`a.assigned_at`, Prisma.sql`a.ended`)} else 0 end as gpu_seconds,
            (select coalesce(json_agg(other order by other.since, other."jobId"), '[]') from (
              select o.job_id as "jobId", j.team_id as "teamId", bool_or(a.status <> 'finished' and o.status <> 'finished') as "isLive", min(o.assigned_at) as since
              from attempt o join job j on j.id = o.job_id
              where o.worker_id = a.worker_id and o.job_id <> ${jobId} and a.outcome is distinct from 'revoked' and o.outcome is distinct from 'revoked'
                and o.assigned_at < a.ended and (o.status <> 'finished' or (o.status = 'finished' and o.finished_at > a.assigned_at))
              group by o.job_id, j.team_id) other) as beside
          from mine a`;
        return new Map(rows.map(({ id, gpu_seconds: gpuSeconds, beside }) => [id, { gpuSeconds, beside: beside.map(({ jobId: other, teamId, isLive }) => ({ jobId: other, teamId, isLive })) }]));
      }),
  };
}

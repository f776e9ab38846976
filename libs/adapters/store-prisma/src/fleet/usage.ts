import { USAGE_HALF_LIFE_MS } from '@tunefleet/domain-scheduling';
import type { Statements } from '../database/statements';
import { Prisma } from '../generated/client';
import { chargedSeconds } from './charged-seconds';

const assignedAt = Prisma.sql`a.assigned_at`;
const finishedAt = Prisma.sql`a.finished_at`;
const monthStart = Prisma.sql`t.month at time zone 'utc'`;

/**
 * Charges the team for the time an ended attempt has held its worker, or shared it. Once per attempt: call it where the attempt is ended, last in the
 * transaction, because every attempt of the team ends on this row.
 */
export async function chargeUsage(tx: Statements, attemptId: string): Promise<void> {
  await tx.$executeRaw`
    insert into team_usage (team_id, decayed_gpu_seconds, decayed_at, month, month_gpu_seconds)
    select j.team_id, t.charged, a.finished_at, t.month,
      case when a.assigned_at >= ${monthStart} then t.charged else ${chargedSeconds(monthStart, finishedAt)} end
    from attempt a join job j on j.id = a.job_id
      cross join lateral (select ${chargedSeconds(assignedAt, finishedAt)} as charged, date_trunc('month', a.finished_at at time zone 'utc') as month) t
    where a.id = ${attemptId} and a.status = 'finished'
    on conflict (team_id) do update set
      decayed_gpu_seconds = excluded.decayed_gpu_seconds
        + team_usage.decayed_gpu_seconds * power(0.5, greatest(0, extract(epoch from excluded.decayed_at - team_usage.decayed_at)) / ${USAGE_HALF_LIFE_MS / 1000}::float8),
      decayed_at = greatest(team_usage.decayed_at, excluded.decayed_at),
      month = greatest(team_usage.month, excluded.month),
      month_gpu_seconds = excluded.month_gpu_seconds + case when team_usage.month = excluded.month then team_usage.month_gpu_seconds else 0 end`;
}

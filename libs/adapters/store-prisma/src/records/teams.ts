import { decayedUsage, startOfMonth } from '@tunefleet/domain-scheduling';
import type { RecordStore, TeamAccountRecord } from '@tunefleet/ports';
import type { Database, Transaction } from '../database/database';
import { announce } from '../database/wake-channel';
import { chargedSeconds } from '../fleet/charged-seconds';
import { Prisma } from '../generated/client';
import { toNumber } from './mapping';

type TeamMethods = Pick<RecordStore, 'listTeams' | 'getTeam' | 'setTeamQuota' | 'sharesWorkers'>;

export function teamMethods(db: Database): TeamMethods {
  return {
    listTeams: () => db.repeating(() => readTeams(db.prisma, null)),

    getTeam: (name) => db.repeating(async () => (await readTeams(db.prisma, name))[0] ?? null),

    sharesWorkers: (teamId) =>
      db.repeating(async () => (await db.statements.$queryRaw<unknown[]>`select 1 as found from team_quota where team_id = ${teamId} and shares_workers`).length > 0),

    setTeamQuota: (name, { storageBytes, ...changes }) =>
      db.transaction(async (tx) => {
        const team = await tx.team.findUnique({ where: { name }, select: { id: true } });
        if (team === null) return null;
        const data = { ...changes, ...(storageBytes === undefined ? {} : { storageBytes: storageBytes === null ? null : BigInt(storageBytes) }) };
        await tx.teamQuota.upsert({ where: { teamId: team.id }, create: { ...data, teamId: team.id }, update: data });
        await announce(tx, 'schedule');
        return (await readTeams(tx, name))[0] ?? null;
      }),
  };
}

interface TeamRow {
  readonly id: string;
  readonly name: string;
  readonly now: Date;
  readonly weight: number | null;
  readonly running_jobs: number | null;
  readonly gpu_hours_per_month: number | null;
  readonly queued_jobs: number | null;
  readonly storage_bytes: bigint | null;
  readonly shares_workers: boolean | null;
  readonly running: bigint;
  readonly queued: bigint;
  readonly stored: bigint;
  readonly decayed_gpu_seconds: number | null;
  readonly decayed_at: Date | null;
  readonly month: Date | null;
  readonly month_gpu_seconds: number | null;
  readonly live_month_seconds: number;
}

/** @param name null: all, by name */
async function readTeams(db: Pick<Transaction, '$queryRaw'>, name: string | null): Promise<TeamAccountRecord[]> {
  const rows = await db.$queryRaw<TeamRow[]>`
    select t.id, t.name, clock_timestamp() as now, q.weight, q.running_jobs, q.gpu_hours_per_month, q.queued_jobs, q.storage_bytes, q.shares_workers,
      u.decayed_gpu_seconds, u.decayed_at, u.month, u.month_gpu_seconds,
      (select count(*) from job j where j.team_id = t.id and j.status = 'running') as running,
      (select count(*) from job j where j.team_id = t.id and j.status in ('validating_files', 'queued')) as queued,
      (select coalesce(sum(f.bytes), 0)::bigint from file f where f.team_id = t.id and f.deleted_at is null) as stored,
      (select coalesce(sum(${chargedSeconds(Prisma.sql`greatest(a.assigned_at, now.month)`, Prisma.sql`now.at`)}), 0)::float8
        from attempt a join job j on j.id = a.job_id
          cross join lateral (select clock_timestamp() as at, date_trunc('month', clock_timestamp() at time zone 'utc') at time zone 'utc' as month) now
        where j.team_id = t.id and a.status <> 'finished') as live_month_seconds
    from team t left join team_quota q on q.team_id = t.id left join team_usage u on u.team_id = t.id
    ${name === null ? Prisma.empty : Prisma.sql`where t.name = ${name}`}
    order by t.name`;
  return rows.map(teamAccountRecord);
}

function teamAccountRecord(row: TeamRow): TeamAccountRecord {
  const nowMs = row.now.getTime();
  const isThisMonth = row.month !== null && row.month.getTime() >= startOfMonth(nowMs);
  return {
    id: row.id,
    name: row.name,
    quota: {
      weight: row.weight ?? 1,
      runningJobs: row.running_jobs,
      gpuHoursPerMonth: row.gpu_hours_per_month,
      queuedJobs: row.queued_jobs,
      storageBytes: row.storage_bytes === null ? null : toNumber(row.storage_bytes),
      sharesWorkers: row.shares_workers ?? false,
    },
    runningJobs: toNumber(row.running),
    queuedJobs: toNumber(row.queued),
    storageBytes: toNumber(row.stored),
    monthGpuSeconds: (isThisMonth ? (row.month_gpu_seconds ?? 0) : 0) + row.live_month_seconds,
    decayedGpuSeconds: row.decayed_at === null ? 0 : decayedUsage(row.decayed_gpu_seconds ?? 0, nowMs - row.decayed_at.getTime()),
  };
}

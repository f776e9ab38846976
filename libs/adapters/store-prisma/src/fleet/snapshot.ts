import { decayedUsage, startOfMonth, type Snapshot, type TeamAccount } from '@tunefleet/domain-scheduling';
import { invariant } from '@tunefleet/foundation';
import { Prisma } from '../generated/client';
import type { Database } from '../database/database';
import { isUnblocked } from '../records/dependents';
import { chargedSeconds } from './charged-seconds';

interface SnapshotRow extends Omit<Snapshot, 'teams' | 'jobsNotShown'> {
  readonly teams: readonly TeamRow[];
  readonly queued: number;
}

interface TeamRow {
  readonly id: string;
  readonly name: string;
  readonly weight: number | null;
  readonly running_jobs: number | null;
  readonly gpu_hours_per_month: number | null;
  readonly decayed_gpu_seconds: number | null;
  readonly decayed_at_ms: number | null;
  readonly month_ms: number | null;
  readonly month_gpu_seconds: number | null;
}

/** Workers not heard of for this long are left out: machines that were taken away. */
const WORKER_MEMORY_DAYS = 7;

/** How long a job is expected to take from step `from` on: as jobs of its shape did, else as those of its kind on its base. */
const seconds = (from: Prisma.Sql): Prisma.Sql => Prisma.sql`
  greatest(1, j.total_steps - ${from}) * coalesce(m.seconds_per_step,
    (select avg(o.seconds_per_step) from measurement o where o.kind = j.kind and o.base_model = j.base_model))`;

/** A time in whole milliseconds. */
const ms = (time: string): Prisma.Sql => Prisma.raw(`floor(extract(epoch from ${time}) * 1000)`);

/** The rows of a query as a JSON list, in its order. */
const listOf = (query: Prisma.Sql): Prisma.Sql => Prisma.sql`(select coalesce(json_agg(r), '[]') from (${query}) r)`;

/** Jobs `j`, alone after a failure: what took its engine down once may do so again, and others with it. */
const sharing = Prisma.sql`
  case when j.share_key is not null and not (j.epoch > 0 and coalesce((
    select a.outcome in ('lost', 'failed') from attempt a where a.job_id = j.id and a.status = 'finished' and a.outcome <> 'revoked' order by a.epoch desc limit 1), false))
  then j.share_key end as "shareKey", j.shared_memory_bytes as "sharedMemoryBytes"`;

// What only a job has that ran before is looked up for those only.
const queuedJobs = (limit: number): Prisma.Sql => Prisma.sql`
  select j.id, j.kind, j.epoch, j.team_id as "teamId", j.priority, ${ms('j.queued_at')} as "queuedAtMs", ${ms('j.not_before')} as "notBeforeMs",
    coalesce((j.worker_spec #>> '{base,id}') || '@' || (j.worker_spec #>> '{base,revision}'), j.base_model) as "baseModel",
    coalesce(j.memory_bytes_estimate, 0) as "memoryBytesEstimate", coalesce(m.memory_ratio, 1) as "memoryCorrection", ${sharing}, j.weight_bytes as "weightBytes",
    ${seconds(Prisma.sql`coalesce(c.step, 0)`)} as "secondsEstimate", j.worker_selector as "workerSelector", ${ms('j.locality_since')} as "localitySinceMs", c.id as "resumeCheckpointId",
    case when j.epoch > 0 then array(select a.worker_id from attempt a where a.job_id = j.id and a.outcome in ('lost', 'failed') order by a.epoch) else '{}' end as "failedWorkerIds",
    case when j.epoch > 0 then (select a.worker_id from attempt a where a.job_id = j.id order by a.epoch desc limit 1) end as "lastWorkerId"
  from due cross join lateral (
    select * from job j
    where j.team_id = due.id and j.status = 'queued' and ${isUnblocked}
    order by j.priority desc, j.queued_at, j.id
    limit (select ceil(${limit}::float8 / greatest(1, count(*)))::int from due)) j
  left join measurement m on m.shape = j.shape
  left join lateral (select c.id, c.step from checkpoint c where j.epoch > 0 and c.job_id = j.id order by c.step desc limit 1) c on true
  order by j.priority desc, j.queued_at, j.id`;

/** What a live attempt is charged from then on; nobody shares a worker of one slot. */
const heldSince = (from: Prisma.Sql): Prisma.Sql => Prisma.sql`case when w.slots > 1 then ${chargedSeconds(from, Prisma.sql`now.at`)} else greatest(0, extract(epoch from now.at - ${from})) end`;

const runningJobs = Prisma.sql`
  select a.job_id as "jobId", a.id as "attemptId", a.epoch, j.team_id as "teamId", a.worker_id as "workerId",
    coalesce(j.memory_bytes_estimate, 0) as "memoryBytesEstimate", coalesce(m.memory_ratio, 1) as "memoryCorrection", ${sharing}, j.priority, ${ms('j.queued_at')} as "queuedAtMs", ${ms('a.assigned_at')} as "assignedAtMs",
    ${heldSince(Prisma.sql`a.assigned_at`)} as "gpuSeconds", ${heldSince(Prisma.sql`greatest(a.assigned_at, now.month)`)} as "monthGpuSeconds",
    case when j.epoch = a.epoch then ${ms('j.estimated_finish')} end as "estimatedFinishMs",
    ${seconds(Prisma.sql`coalesce(c.step, 0)`)} as "secondsEstimate", j.preemptions,
    j.status <> 'running' or j.epoch <> a.epoch or j.stop_reason is not null as stopping, a.preempted_for_job_id as "preemptedForJobId"
  from attempt a join job j on j.id = a.job_id join worker w on w.id = a.worker_id
    cross join (select clock_timestamp() as at, date_trunc('month', clock_timestamp() at time zone 'utc') at time zone 'utc' as month) now
    left join measurement m on m.shape = j.shape
    left join checkpoint c on c.id = a.resume_checkpoint_id
  where a.status <> 'finished'`;

const workers = Prisma.sql`
  select w.id, w.name, w.boot_id as "bootId", coalesce(w.session_id, '') as "sessionId", w.status = 'online' and w.session_id is not null as online, w.cordoned,
    live.worker_id is not null as busy, w.slots, w.credit, w.job_kinds as "jobKinds", w.labels, w.device -> 'memoryBytesTotal' as "memoryBytesTotal", w.device -> 'memoryBytesFree' as "memoryBytesFree",
    w.models_on_disk as "modelsOnDisk", w.model_in_memory as "modelInMemory",
    case when live.worker_id is null then (select ${ms('max(a.finished_at)')} from attempt a where a.worker_id = w.id and a.status = 'finished') end as "idleSinceMs"
  from worker w left join (select distinct worker_id from attempt where status <> 'finished') live on live.worker_id = w.id
  where w.last_seen_at > clock_timestamp() - make_interval(days => ${WORKER_MEMORY_DAYS}::int)
  order by w.id`;

const teamAccounts = Prisma.sql`
  select t.id, t.name, q.weight, q.running_jobs, q.gpu_hours_per_month, u.decayed_gpu_seconds, ${ms('u.decayed_at')} as decayed_at_ms, ${ms('u.month')} as month_ms, u.month_gpu_seconds
  from team t left join team_quota q on q.team_id = t.id left join team_usage u on u.team_id = t.id`;

/** One consistent picture, because it is one statement. Every team's queue is read from its head, so that no team's hides another's. */
export async function readSnapshot(db: Database, limit: number): Promise<Snapshot> {
  const [row] = await db.repeating(
    () => db.statements.$queryRaw<{ snapshot: SnapshotRow }[]>`
      with due as materialized (select t.id from team t where exists (select 1 from job j where j.team_id = t.id and j.status = 'queued'))
      select json_build_object('nowMs', ${ms('clock_timestamp()')}, 'queued', (select count(*) from job j where j.status = 'queued' and ${isUnblocked}),
        'jobs', ${listOf(queuedJobs(limit))}, 'running', ${listOf(runningJobs)}, 'workers', ${listOf(workers)}, 'teams', ${listOf(teamAccounts)}) as snapshot`,
  );
  invariant(row !== undefined, 'the scheduler was shown nothing');
  const { queued, teams, ...snapshot } = row.snapshot;
  return { ...snapshot, teams: teams.map((team) => teamAccount(team, snapshot.nowMs)), jobsNotShown: queued - snapshot.jobs.length };
}

function teamAccount(row: TeamRow, nowMs: number): TeamAccount {
  const isThisMonth = row.month_ms !== null && row.month_ms >= startOfMonth(nowMs);
  return {
    id: row.id,
    name: row.name,
    weight: row.weight ?? 1,
    decayedGpuSeconds: row.decayed_at_ms === null ? 0 : decayedUsage(row.decayed_gpu_seconds ?? 0, nowMs - row.decayed_at_ms),
    monthGpuSeconds: isThisMonth ? (row.month_gpu_seconds ?? 0) : 0,
    quota: { runningJobs: row.running_jobs, gpuHoursPerMonth: row.gpu_hours_per_month },
  };
}

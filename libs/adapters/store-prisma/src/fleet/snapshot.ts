import { decayedUsage, startOfMonth, type QueuedJob, type RunningJob, type SchedulableWorker, type Snapshot, type TeamAccount } from '@tunefleet/domain-scheduling';
import type { WorkerDevice } from '@tunefleet/ports';
import { Prisma } from '../generated/client';
import type { Database } from '../database/database';
import { isUnblocked } from '../records/dependents';
import { toNumber } from '../records/mapping';

interface JobRow {
  readonly id: string;
  readonly kind: string;
  readonly epoch: number;
  readonly team_id: string;
  readonly priority: number;
  readonly queued_at: Date;
  readonly not_before: Date | null;
  readonly base_model: string;
  readonly memory_bytes_estimate: bigint | null;
  readonly memory_ratio: number | null;
  readonly weight_bytes: bigint | null;
  readonly seconds: number | null;
  readonly worker_selector: Readonly<Record<string, string>>;
  readonly locality_since: Date | null;
  readonly checkpoint_id: string | null;
  readonly failed_worker_ids: string[] | null;
  readonly last_worker_id: string | null;
  readonly queued: bigint;
}

interface RunningRow {
  readonly job_id: string;
  readonly attempt_id: string;
  readonly epoch: number;
  readonly team_id: string;
  readonly worker_id: string;
  readonly priority: number;
  readonly queued_at: Date;
  readonly assigned_at: Date;
  readonly estimated_finish: Date | null;
  readonly seconds: number | null;
  readonly preemptions: number;
  readonly stopping: boolean;
  readonly preempted_for_job_id: string | null;
}

interface WorkerRow {
  readonly id: string;
  readonly name: string;
  readonly boot_id: string;
  readonly session_id: string | null;
  readonly status: string;
  readonly cordoned: boolean;
  readonly credit: number;
  readonly job_kinds: string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly models_on_disk: string[];
  readonly model_in_memory: string | null;
  readonly device: WorkerDevice;
  readonly busy: boolean;
  readonly idle_since: Date | null;
}

interface TeamRow {
  readonly id: string;
  readonly name: string;
  readonly weight: number | null;
  readonly running_jobs: number | null;
  readonly gpu_hours_per_month: number | null;
  readonly decayed_gpu_seconds: number | null;
  readonly decayed_at: Date | null;
  readonly month: Date | null;
  readonly month_gpu_seconds: number | null;
}

/** Workers not heard of for this long are left out: machines that were taken away. */
const WORKER_MEMORY_DAYS = 7;

/** How long a job is expected to take from step `from` on: as jobs of its shape did, else as those of its kind on its base. */
const seconds = (from: Prisma.Sql): Prisma.Sql => Prisma.sql`
  greatest(1, j.total_steps - ${from}) * coalesce(m.seconds_per_step,
    (select avg(o.seconds_per_step) from measurement o where o.kind = j.kind and o.base_model = j.base_model))`;

/** One consistent picture (repeatable read). Every team's queue is read from its head, so that no team's hides another's. */
export async function readSnapshot(db: Database, limit: number): Promise<Snapshot> {
  const { prisma } = db;
  const [times, jobs, running, workers, teams] = await db.repeating(() =>
    prisma.$transaction(
      [
        prisma.$queryRaw<{ now: Date }[]>`select clock_timestamp() as now`,
        // What only a job has that ran before is looked up for those only.
        prisma.$queryRaw<JobRow[]>`
          with due as (select t.id from team t where exists (select 1 from job j where j.team_id = t.id and j.status = 'queued'))
          select j.id, j.kind, j.epoch, j.team_id, j.priority, j.queued_at, j.not_before, j.memory_bytes_estimate, j.weight_bytes, j.worker_selector, j.locality_since,
            coalesce((j.worker_spec #>> '{base,id}') || '@' || (j.worker_spec #>> '{base,revision}'), j.base_model) as base_model,
            m.memory_ratio, ${seconds(Prisma.sql`coalesce(c.step, 0)`)} as seconds, c.id as checkpoint_id,
            case when j.epoch > 0 then array(select a.worker_id from attempt a where a.job_id = j.id and a.outcome in ('lost', 'failed') order by a.epoch) end as failed_worker_ids,
            case when j.epoch > 0 then (select a.worker_id from attempt a where a.job_id = j.id order by a.epoch desc limit 1) end as last_worker_id,
            (select count(*) from job j where j.status = 'queued' and ${isUnblocked}) as queued
          from due cross join lateral (
            select * from job j
            where j.team_id = due.id and j.status = 'queued' and ${isUnblocked}
            order by j.priority desc, j.queued_at, j.id
            limit (select ceil(${limit}::float8 / greatest(1, count(*)))::int from due)) j
          left join measurement m on m.shape = j.shape
          left join lateral (select c.id, c.step from checkpoint c where j.epoch > 0 and c.job_id = j.id order by c.step desc limit 1) c on true
          order by j.priority desc, j.queued_at, j.id`,
        prisma.$queryRaw<RunningRow[]>`
          select a.job_id, a.id as attempt_id, a.epoch, j.team_id, a.worker_id, j.priority, j.queued_at, a.assigned_at, j.preemptions, a.preempted_for_job_id,
            case when j.epoch = a.epoch then j.estimated_finish end as estimated_finish,
            ${seconds(Prisma.sql`coalesce(c.step, 0)`)} as seconds,
            j.status <> 'running' or j.epoch <> a.epoch or j.stop_reason is not null as stopping
          from attempt a join job j on j.id = a.job_id
            left join measurement m on m.shape = j.shape
            left join checkpoint c on c.id = a.resume_checkpoint_id
          where a.status <> 'finished'`,
        prisma.$queryRaw<WorkerRow[]>`
          select w.id, w.name, w.boot_id, w.session_id, w.status, w.cordoned, w.credit, w.job_kinds, w.labels, w.models_on_disk, w.model_in_memory, w.device,
            live.id is not null as busy,
            case when live.id is null then (select max(a.finished_at) from attempt a where a.worker_id = w.id and a.status = 'finished') end as idle_since
          from worker w left join attempt live on live.worker_id = w.id and live.status <> 'finished'
          where w.last_seen_at > clock_timestamp() - make_interval(days => ${WORKER_MEMORY_DAYS}::int)
          order by w.id`,
        prisma.$queryRaw<TeamRow[]>`
          select t.id, t.name, q.weight, q.running_jobs, q.gpu_hours_per_month, u.decayed_gpu_seconds, u.decayed_at, u.month, u.month_gpu_seconds
          from team t left join team_quota q on q.team_id = t.id left join team_usage u on u.team_id = t.id`,
      ],
      { isolationLevel: Prisma.TransactionIsolationLevel.RepeatableRead },
    ),
  );
  const nowMs = times[0]?.now.getTime() ?? Date.now();
  return {
    nowMs,
    jobs: jobs.map(queuedJob),
    workers: workers.map(schedulableWorker),
    running: running.map(runningJob),
    teams: teams.map((row) => teamAccount(row, nowMs)),
    jobsNotShown: jobs[0] === undefined ? 0 : Number(jobs[0].queued) - jobs.length,
  };
}

function queuedJob(row: JobRow): QueuedJob {
  return {
    id: row.id,
    kind: row.kind,
    epoch: row.epoch,
    teamId: row.team_id,
    priority: row.priority,
    queuedAtMs: row.queued_at.getTime(),
    notBeforeMs: row.not_before?.getTime() ?? null,
    baseModel: row.base_model,
    memoryBytesEstimate: row.memory_bytes_estimate === null ? 0 : toNumber(row.memory_bytes_estimate),
    memoryCorrection: row.memory_ratio ?? 1,
    weightBytes: row.weight_bytes === null ? null : toNumber(row.weight_bytes),
    secondsEstimate: row.seconds,
    workerSelector: row.worker_selector,
    localitySinceMs: row.locality_since?.getTime() ?? null,
    resumeCheckpointId: row.checkpoint_id,
    failedWorkerIds: row.failed_worker_ids ?? [],
    lastWorkerId: row.last_worker_id,
  };
}

function runningJob(row: RunningRow): RunningJob {
  return {
    jobId: row.job_id,
    attemptId: row.attempt_id,
    epoch: row.epoch,
    teamId: row.team_id,
    workerId: row.worker_id,
    priority: row.priority,
    queuedAtMs: row.queued_at.getTime(),
    assignedAtMs: row.assigned_at.getTime(),
    estimatedFinishMs: row.estimated_finish?.getTime() ?? null,
    secondsEstimate: row.seconds,
    preemptions: row.preemptions,
    stopping: row.stopping,
    preemptedForJobId: row.preempted_for_job_id,
  };
}

function schedulableWorker(row: WorkerRow): SchedulableWorker {
  return {
    id: row.id,
    name: row.name,
    bootId: row.boot_id,
    sessionId: row.session_id ?? '',
    online: row.status === 'online' && row.session_id !== null,
    cordoned: row.cordoned,
    busy: row.busy,
    credit: row.credit,
    jobKinds: row.job_kinds,
    labels: row.labels,
    memoryBytesTotal: row.device.memoryBytesTotal,
    memoryBytesFree: row.device.memoryBytesFree,
    modelsOnDisk: row.models_on_disk,
    modelInMemory: row.model_in_memory,
    idleSinceMs: row.idle_since?.getTime() ?? null,
  };
}

function teamAccount(row: TeamRow, nowMs: number): TeamAccount {
  const isThisMonth = row.month !== null && row.month.getTime() >= startOfMonth(nowMs);
  return {
    id: row.id,
    name: row.name,
    weight: row.weight ?? 1,
    decayedGpuSeconds: row.decayed_at === null ? 0 : decayedUsage(row.decayed_gpu_seconds ?? 0, nowMs - row.decayed_at.getTime()),
    monthGpuSeconds: isThisMonth ? (row.month_gpu_seconds ?? 0) : 0,
    quota: { runningJobs: row.running_jobs, gpuHoursPerMonth: row.gpu_hours_per_month },
  };
}

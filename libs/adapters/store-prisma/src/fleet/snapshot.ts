import type { QueuedJob, SchedulableWorker, Snapshot } from '@tunefleet/domain-scheduling';
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
  readonly checkpoint_id: string | null;
  readonly failed_worker_ids: string[];
  readonly last_worker_id: string | null;
  readonly queued: bigint;
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
  readonly models_on_disk: string[];
  readonly model_in_memory: string | null;
  readonly device: WorkerDevice;
  readonly busy: boolean;
}

/** Workers not heard of for this long are left out: machines that were taken away. */
const WORKER_MEMORY_DAYS = 7;

/** One consistent picture (repeatable read): the first `limit` jobs of the queue in placing order, and all workers. */
export async function readSnapshot(db: Database, limit: number): Promise<Snapshot> {
  const { prisma } = db;
  const [times, jobs, workers] = await db.repeating(() =>
    prisma.$transaction(
      [
        prisma.$queryRaw<{ now: Date }[]>`select clock_timestamp() as now`,
        prisma.$queryRaw<JobRow[]>`
          select j.id, j.kind, j.epoch, j.team_id, j.priority, j.queued_at, j.not_before, j.memory_bytes_estimate,
            coalesce((j.worker_spec #>> '{base,id}') || '@' || (j.worker_spec #>> '{base,revision}'), j.base_model) as base_model,
            (select c.id from checkpoint c where c.job_id = j.id order by c.step desc limit 1) as checkpoint_id,
            array(select a.worker_id from attempt a where a.job_id = j.id and a.outcome in ('lost', 'failed') order by a.epoch) as failed_worker_ids,
            (select a.worker_id from attempt a where a.job_id = j.id order by a.epoch desc limit 1) as last_worker_id,
            (select count(*) from job j where j.status = 'queued' and ${isUnblocked}) as queued
          from job j
          where j.status = 'queued' and ${isUnblocked}
          order by j.priority desc, j.queued_at, j.id
          limit ${limit}`,
        prisma.$queryRaw<WorkerRow[]>`
          select w.id, w.name, w.boot_id, w.session_id, w.status, w.cordoned, w.credit, w.job_kinds, w.models_on_disk, w.model_in_memory, w.device,
            exists (select 1 from attempt a where a.worker_id = w.id and a.status <> 'finished') as busy
          from worker w
          where w.last_seen_at > clock_timestamp() - make_interval(days => ${WORKER_MEMORY_DAYS}::int)
          order by w.id`,
      ],
      { isolationLevel: Prisma.TransactionIsolationLevel.RepeatableRead },
    ),
  );
  return {
    nowMs: times[0]?.now.getTime() ?? Date.now(),
    jobs: jobs.map(queuedJob),
    workers: workers.map(schedulableWorker),
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
    resumeCheckpointId: row.checkpoint_id,
    failedWorkerIds: row.failed_worker_ids,
    lastWorkerId: row.last_worker_id,
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
    memoryBytesTotal: row.device.memoryBytesTotal,
    memoryBytesFree: row.device.memoryBytesFree,
    modelsOnDisk: row.models_on_disk,
    modelInMemory: row.model_in_memory,
  };
}

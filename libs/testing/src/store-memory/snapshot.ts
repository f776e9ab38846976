import { decayedUsage, startOfMonth, type QueuedJob, type RunningJob, type SchedulableWorker, type Snapshot, type TeamAccount } from '@tunefleet/domain-scheduling';
import type { AttemptRecord, WorkerRecord } from '@tunefleet/ports';
import { chargedSeconds } from './company';
import { isUnblocked } from './dependents';
import type { JobRow, Tables } from './tables';
import { secondsEstimate } from './usage';

const WORKER_MEMORY_MS = 7 * 86_400_000;

export function readSnapshot(tables: Tables, limit: number): Snapshot {
  const nowMs = tables.nowMs();
  const averages = new Map<string, number | null>();
  const queued = tables.queuedJobs();
  const open = queued.filter((job) => isUnblocked(tables, job));
  const teamsDue = new Set(queued.map(({ teamId }) => teamId)).size;
  const perTeam = Math.ceil(limit / Math.max(1, teamsDue));
  const shown = new Map<string, number>();
  const jobs = open.filter(({ teamId }) => {
    const count = (shown.get(teamId) ?? 0) + 1;
    shown.set(teamId, count);
    return count <= perTeam;
  });
  return {
    nowMs,
    jobs: jobs.map((job) => queuedJob(tables, job, averages)),
    workers: schedulableWorkers(tables, nowMs),
    running: runningJobs(tables, averages, nowMs),
    teams: [...tables.teams.values()].map(({ id, name }) => teamAccount(tables, { id, name }, nowMs)),
    jobsNotShown: open.length - jobs.length,
  };
}

function queuedJob(tables: Tables, job: JobRow, averages: Map<string, number | null>): QueuedJob {
  const attempts = job.epoch > 0 ? tables.attemptsOf(job.id) : [];
  const checkpoint = job.epoch > 0 ? tables.checkpointsOf(job.id)[0] : undefined;
  const base = job.workerSpec?.['base'] as { id?: string; revision?: string } | undefined;
  return {
    id: job.id,
    kind: job.kind,
    epoch: job.epoch,
    teamId: job.teamId,
    priority: job.priority,
    queuedAtMs: job.queuedAt?.getTime() ?? 0,
    notBeforeMs: job.notBefore?.getTime() ?? null,
    baseModel: base?.id !== undefined && base.revision !== undefined ? `${base.id}@${base.revision}` : job.baseModel,
    ...memoryOf(tables, job, attempts),
    weightBytes: job.weightBytes,
    secondsEstimate: secondsEstimate(tables, job, checkpoint?.step ?? 0, averages),
    workerSelector: job.workerSelector,
    localitySinceMs: job.localitySince?.getTime() ?? null,
    resumeCheckpointId: checkpoint?.id ?? null,
    failedWorkerIds: attempts.filter(({ outcome }) => outcome === 'lost' || outcome === 'failed').map(({ workerId }) => workerId),
    lastWorkerId: attempts.at(-1)?.workerId ?? null,
  };
}

/** What it takes, and with whom it may share a worker: with nobody after a failure. */
function memoryOf(tables: Tables, job: JobRow, attempts: readonly AttemptRecord[]): Pick<QueuedJob, 'memoryBytesEstimate' | 'memoryCorrection' | 'shareKey' | 'sharedMemoryBytes'> {
  const last = attempts.findLast(({ status, outcome }) => status === 'finished' && outcome !== 'revoked')?.outcome;
  return {
    memoryBytesEstimate: job.memoryBytesEstimate ?? 0,
    memoryCorrection: (job.shape === null ? null : tables.measurements.get(job.shape)?.memoryRatio) ?? 1,
    shareKey: last === 'lost' || last === 'failed' ? null : job.shareKey,
    sharedMemoryBytes: job.sharedMemoryBytes,
  };
}

function runningJobs(tables: Tables, averages: Map<string, number | null>, nowMs: number): RunningJob[] {
  return tables.liveAttempts().map((attempt): RunningJob => {
    const job = tables.jobs.get(attempt.jobId) as JobRow;
    const fromStep = attempt.resumeCheckpointId === null ? 0 : (tables.checkpoints.get(attempt.resumeCheckpointId)?.step ?? 0);
    return {
      jobId: job.id,
      attemptId: attempt.id,
      epoch: attempt.epoch,
      teamId: job.teamId,
      workerId: attempt.workerId,
      ...memoryOf(tables, job, job.shareKey === null ? [] : tables.attemptsOf(job.id)),
      priority: job.priority,
      queuedAtMs: job.queuedAt?.getTime() ?? 0,
      assignedAtMs: attempt.assignedAt.getTime(),
      gpuSeconds: chargedSeconds(tables, attempt, attempt.assignedAt.getTime(), nowMs),
      monthGpuSeconds: chargedSeconds(tables, attempt, Math.max(attempt.assignedAt.getTime(), startOfMonth(nowMs)), nowMs),
      estimatedFinishMs: job.epoch === attempt.epoch ? (job.estimatedFinish?.getTime() ?? null) : null,
      secondsEstimate: secondsEstimate(tables, job, fromStep, averages),
      preemptions: job.preemptions,
      stopping: job.status !== 'running' || job.epoch !== attempt.epoch || job.stopReason !== null,
      preemptedForJobId: attempt.preemptedForJobId,
    };
  });
}

interface WorkerViews {
  order: readonly string[];
  views: SchedulableWorker[];
  readonly at: Map<string, number>;
}

/** In a large fleet few workers change between two looks. */
const viewsOf = new WeakMap<Tables, WorkerViews>();

function schedulableWorkers(tables: Tables, nowMs: number): SchedulableWorker[] {
  const order = tables.workersInOrder();
  let known = viewsOf.get(tables);
  if (known?.order !== order) {
    known = { order, views: order.map((id) => viewOf(tables, id)), at: new Map(order.map((id, index) => [id, index])) };
    viewsOf.set(tables, known);
  } else {
    for (const id of tables.changedWorkers) known.views[known.at.get(id) as number] = viewOf(tables, id);
  }
  tables.changedWorkers.clear();
  return known.views.filter(({ id }) => (tables.workers.get(id) as WorkerRecord).lastSeenAt.getTime() > nowMs - WORKER_MEMORY_MS);
}

function viewOf(tables: Tables, workerId: string): SchedulableWorker {
  const worker = tables.workers.get(workerId) as WorkerRecord;
  const busy = tables.isBusy(workerId);
  return {
    id: worker.id,
    name: worker.name,
    bootId: worker.bootId,
    sessionId: worker.sessionId ?? '',
    online: worker.status === 'online' && worker.sessionId !== null,
    cordoned: worker.cordoned,
    busy,
    slots: worker.slots,
    credit: worker.credit,
    jobKinds: worker.jobKinds,
    labels: worker.labels,
    memoryBytesTotal: worker.device.memoryBytesTotal,
    memoryBytesFree: worker.device.memoryBytesFree,
    modelsOnDisk: worker.modelsOnDisk,
    modelInMemory: worker.modelInMemory,
    idleSinceMs: busy ? null : tables.lastEndOn(workerId),
  };
}

function teamAccount(tables: Tables, { id, name }: { readonly id: string; readonly name: string }, nowMs: number): TeamAccount {
  const { weight, runningJobs, gpuHoursPerMonth } = tables.quotaOf(id);
  const usage = tables.usage.get(id);
  return {
    id,
    name,
    weight,
    decayedGpuSeconds: usage === undefined ? 0 : decayedUsage(usage.decayedGpuSeconds, nowMs - usage.decayedAtMs),
    monthGpuSeconds: usage !== undefined && usage.monthMs >= startOfMonth(nowMs) ? usage.monthGpuSeconds : 0,
    quota: { runningJobs, gpuHoursPerMonth },
  };
}

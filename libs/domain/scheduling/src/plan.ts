import { match, type Applicant } from './matching';
import type { QueuedJob, SchedulableWorker, Snapshot } from './snapshot';
import { candidatesFor, type Candidates } from './waiting';

/** One job onto one worker, valid only while both are as the snapshot says. */
export interface Placement {
  readonly jobId: string;
  readonly jobEpoch: number;
  readonly workerId: string;
  readonly workerBootId: string;
  readonly workerSessionId: string;
  readonly resumeCheckpointId: string | null;
}

export interface Plan {
  readonly placements: readonly Placement[];
  /** One reason per job that stays, by job id. */
  readonly reasons: ReadonlyMap<string, string>;
}

/**
 * Decides which queued job goes to which worker: by priority, then first in first out, one job per worker. Pure; the store applies it
 * with conditional updates, and what changed meanwhile is planned again.
 */
export function plan(snapshot: Snapshot, nowMs: number = snapshot.nowMs): Plan {
  const reasons = new Map<string, string>();
  const alike = oncePerShape<Candidates>();
  const applicants = [...snapshot.jobs].sort(queueOrder).map((job): Applicant => {
    const { workers, reason } = alike(job, () => {
      const candidates = candidatesFor(job, snapshot.workers, nowMs);
      return { ...candidates, workers: byPreference(job, candidates.workers) };
    });
    reasons.set(job.id, reason);
    return { job, workers };
  });
  const placements = match(applicants).map(({ job, worker }) => {
    reasons.delete(job.id);
    return placementOf(job, worker);
  });
  return { placements, reasons };
}

/** Long queues hold few shapes of jobs: those alike in everything that is looked at get the answer that the first of them got. */
function oncePerShape<T>(): (job: QueuedJob, answer: () => T) => T {
  const answers = new Map<string, T>();
  return (job, answer) => {
    const key = JSON.stringify([job.kind, job.memoryBytesEstimate, job.baseModel, job.notBeforeMs, job.lastWorkerId, job.failedWorkerIds]);
    const known = answers.get(key) ?? answer();
    answers.set(key, known);
    return known;
  };
}

function queueOrder(a: QueuedJob, b: QueuedJob): number {
  return b.priority - a.priority || a.queuedAtMs - b.queuedAtMs || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/**
 * Not where it failed last; then where the least has to be loaded; then the smallest worker that does, so that large ones stay free for
 * large jobs.
 */
function byPreference(job: QueuedJob, workers: readonly SchedulableWorker[]): readonly SchedulableWorker[] {
  const failedLast = job.failedWorkerIds.at(-1);
  const rank = new Map(workers.map((worker) => [worker.id, worker.id === failedLast ? 10 : loading(job, worker)]));
  return [...workers].sort(
    (a, b) => (rank.get(a.id) ?? 0) - (rank.get(b.id) ?? 0) || a.memoryBytesTotal - b.memoryBytesTotal || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
  );
}

/** How much has to be fetched and loaded before the first step, from 0 (nothing) up. */
function loading(job: QueuedJob, worker: SchedulableWorker): number {
  if (worker.modelInMemory === job.baseModel) return 0;
  const evicts = worker.modelInMemory === null ? 0 : 1;
  if (!worker.modelsOnDisk.includes(job.baseModel)) return 6 + evicts;
  // Its own checkpoint may lie there, too.
  return (worker.id === job.lastWorkerId ? 2 : 4) + evicts;
}

function placementOf(job: QueuedJob, worker: SchedulableWorker): Placement {
  return {
    jobId: job.id,
    jobEpoch: job.epoch,
    workerId: worker.id,
    workerBootId: worker.bootId,
    workerSessionId: worker.sessionId,
    resumeCheckpointId: job.resumeCheckpointId,
  };
}

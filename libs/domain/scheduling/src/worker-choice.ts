import type { QueuedJob, SchedulableWorker } from './snapshot';

/** How much has to be fetched and loaded before the first step, from 0 (nothing) up; last of all where it failed last. */
export function loadingRank(job: QueuedJob, worker: SchedulableWorker): number {
  if (worker.id === job.failedWorkerIds.at(-1)) return 10;
  if (worker.modelInMemory === job.baseModel) return 0;
  const evicts = worker.modelInMemory === null ? 0 : 1;
  if (!worker.modelsOnDisk.includes(job.baseModel)) return 6 + evicts;
  // Its own checkpoint may lie there, too.
  return (worker.id === job.lastWorkerId ? 2 : 4) + evicts;
}

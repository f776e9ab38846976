import { fits } from './memory-fit';
import { expectedEndMs } from './running-view';
import type { QueuedJob, RunningJob, SchedulableWorker } from './snapshot';
import type { Applicant } from './matching';
import type { WaitingReason } from './waiting-reason';
import type { Fleet } from './worker-pool';

/** Bytes of weights per second that a worker reads from its disk and turns into tensors, and that it fetches over the network. */
export const LOAD_BYTES_PER_SECOND = 200e6;
export const FETCH_BYTES_PER_SECOND = 50e6;
export const LOCALITY_WAIT_MAX_MS = 60_000;

export interface LocalityWait {
  readonly reason: WaitingReason;
  readonly untilMs: number;
  /** The busy worker it waits for, for itself. */
  readonly workerId: string;
}

/** Twice what loading the model elsewhere would take, one minute at most. */
export function localityBoundMs(job: QueuedJob, worker: SchedulableWorker): number {
  if (job.weightBytes === null || worker.modelInMemory === job.baseModel) return 0;
  const isOnDisk = worker.modelsOnDisk.includes(job.baseModel);
  const loadMs = 1000 * (job.weightBytes / LOAD_BYTES_PER_SECOND + (isOnDisk ? 0 : job.weightBytes / FETCH_BYTES_PER_SECOND));
  return Math.min(2 * loadMs, LOCALITY_WAIT_MAX_MS);
}

/**
 * Busy workers by the model they hold: a job may pass a free worker by for one of them, for a bounded time in all, when it is expected to
 * be free before the time is over. Each is waited for by one job.
 * @see Zaharia et al. 2010, "Delay scheduling"
 */
export class ModelLocality {
  private readonly busyByModel = new Map<string, number[]>();
  private readonly awaited = new Set<number>();
  private readonly endsMs = new Map<string, number>();

  constructor(
    private readonly fleet: Fleet,
    running: readonly RunningJob[],
    private readonly nowMs: number,
  ) {
    for (const job of running) this.endsMs.set(job.workerId, Math.max(this.endsMs.get(job.workerId) ?? 0, expectedEndMs(job, nowMs)));
    fleet.workers.forEach((worker, index) => {
      if (!worker.online || worker.cordoned || !worker.busy || worker.modelInMemory === null) return;
      this.busyByModel.set(worker.modelInMemory, [...(this.busyByModel.get(worker.modelInMemory) ?? []), index]);
    });
  }

  /** @param free the worker it would get now */
  waitFor({ job, feasible }: Applicant, free: SchedulableWorker): LocalityWait | null {
    const boundMs = localityBoundMs(job, free);
    const untilMs = (job.localitySinceMs ?? this.nowMs) + boundMs;
    if (untilMs <= this.nowMs) return null;
    for (const index of this.busyByModel.get(job.baseModel) ?? []) {
      const worker = this.fleet.workers[index] as SchedulableWorker;
      if (this.awaited.has(index) || feasible.excluded.has(worker.id) || worker.id === job.failedWorkerIds.at(-1)) continue;
      if (!fits(feasible.needBytes, worker.memoryBytesTotal) || !feasible.pool.has(index)) continue;
      if ((this.endsMs.get(worker.id) ?? Infinity) > untilMs) continue;
      this.awaited.add(index);
      const text = `waiting for worker ${worker.name}, which holds ${job.baseModel} in memory, ${Math.ceil(boundMs / 1000)} s at most`;
      return { reason: { code: 'model_locality', text }, untilMs, workerId: worker.id };
    }
    return null;
  }
}

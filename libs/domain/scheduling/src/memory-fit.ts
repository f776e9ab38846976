import type { QueuedJob, SchedulableWorker } from './snapshot';

/** Estimates err and runtimes keep some for themselves: only so much of a worker's memory is given away. */
export const MEMORY_SHARE = 0.92;

/** What a job is held to need: its estimate, corrected by what jobs of its shape were measured to take. */
export function memoryNeed(job: Pick<QueuedJob, 'memoryBytesEstimate' | 'memoryCorrection'>): number {
  return job.memoryBytesEstimate * job.memoryCorrection;
}

/** What it adds on a worker that holds its base model for others; all of its need where nobody said. */
export function sharedMemoryNeed(job: Pick<QueuedJob, 'memoryBytesEstimate' | 'memoryCorrection' | 'sharedMemoryBytes'>): number {
  return (job.sharedMemoryBytes ?? job.memoryBytesEstimate) * job.memoryCorrection;
}

export function fits(needBytes: number, memoryBytes: number): boolean {
  return needBytes <= memoryBytes * MEMORY_SHARE;
}

/** An idle engine that holds a model gives its memory back, or uses it for the job. How much it holds is not known. */
export function memoryAvailable(worker: Pick<SchedulableWorker, 'modelInMemory' | 'memoryBytesFree' | 'memoryBytesTotal'>): number {
  return worker.modelInMemory === null ? Math.min(worker.memoryBytesFree, worker.memoryBytesTotal) : worker.memoryBytesTotal;
}

/** The estimate as a function of the examples in one pass: `fixedBytes + rows * rowBytes`. */
export interface MemoryModel {
  readonly fixedBytes: number;
  readonly rowBytes: number;
}

/** A worker may have computed activations twice to save memory, so less than estimated proves nothing; more than four times is no estimate's fault. */
const RATIO_MIN = 1;
const RATIO_MAX = 4;
/** Weight of a new measurement that is lower than what is known. */
const LOWER_WEIGHT = 0.2;

/**
 * What jobs of a shape are known to take relative to the estimate, after one more was measured: up at once, down slowly, because too little
 * costs a run and too much costs a wait.
 */
export function correctedRatio(known: number | null, measured: { readonly peakBytes: number; readonly rows: number; readonly model: MemoryModel }): number {
  const { peakBytes, rows, model } = measured;
  const ratio = Math.min(RATIO_MAX, Math.max(RATIO_MIN, peakBytes / (model.fixedBytes + rows * model.rowBytes)));
  if (known === null || ratio >= known) return ratio;
  return known + LOWER_WEIGHT * (ratio - known);
}

const MEBIBYTE = 1024 * 1024;

export function sizeText(bytes: number, round: (value: number) => number): string {
  const mebibytes = bytes / MEBIBYTE;
  return mebibytes < 1024 ? `${round(mebibytes)} MiB` : `${(round((mebibytes / 1024) * 10) / 10).toFixed(1)} GiB`;
}

import type { QueuedJob, SchedulableWorker } from './snapshot';

/** Estimates err and runtimes keep some for themselves: only so much of a worker's memory is given away. */
export const MEMORY_SHARE = 0.92;

/** A worker on which a job failed so often gets it again only when no other could ever run it. */
export const FAILURES_TO_EXCLUDE = 2;

/** Workers that could take the job now, and one sentence that says what it waits for when it gets none of them. */
export interface Candidates {
  readonly workers: readonly SchedulableWorker[];
  readonly reason: string;
}

/**
 * Asks less and less fundamental questions; the first to which no worker answers yes is the reason. The same text is shown by API and
 * command line, so it holds nothing that changes from pass to pass, such as a place in the queue.
 */
export function candidatesFor(job: QueuedJob, workers: readonly SchedulableWorker[], nowMs: number): Candidates {
  if (job.notBeforeMs !== null && job.notBeforeMs > nowMs) return waiting(`waiting after a failure, tried again from ${new Date(job.notBeforeMs).toISOString()} on`);
  const online = workers.filter((worker) => worker.online);
  if (online.length === 0) return waiting('waiting for a worker: none is online');

  const capable = online.filter((worker) => worker.jobKinds.includes(job.kind));
  if (capable.length === 0) return waiting(`waiting for a worker that runs ${job.kind} jobs: ${counted(online, 'is', 'are')} online and cannot`);

  const large = capable.filter((worker) => fits(job, worker.memoryBytesTotal));
  if (large.length === 0) return waiting(tooLarge(job, capable.map((worker) => worker.memoryBytesTotal), 'for a job'));

  const open = large.filter((worker) => !worker.cordoned);
  if (open.length === 0) return waiting(`waiting for a worker: ${counted(large, 'fits but is', 'fit but are')} cordoned`);

  const trusted = withoutExcluded(job, open);
  const idle = trusted.filter((worker) => !worker.busy);
  if (idle.length === 0) return waiting(allBusy(trusted));

  const ready = idle.filter((worker) => worker.credit > 0);
  if (ready.length === 0) return waiting(`waiting for a worker: ${counted(idle, 'fits but is', 'fit but are')} not ready for a job yet`);

  const roomy = ready.filter((worker) => fits(job, available(worker)));
  if (roomy.length === 0) return waiting(tooLarge(job, ready.map(available), 'free for a job'));
  return { workers: roomy, reason: allBusy(trusted) };
}

function waiting(reason: string): Candidates {
  return { workers: [], reason };
}

/** Of those that are idle now, other jobs take all in this pass. */
function allBusy(fitting: readonly SchedulableWorker[]): string {
  return `waiting for a free worker: ${counted(fitting, 'fits and is', 'fit and are')} busy`;
}

function fits(job: QueuedJob, memoryBytes: number): boolean {
  return job.memoryBytesEstimate <= memoryBytes * MEMORY_SHARE;
}

/** An idle engine that holds a model gives its memory back, or uses it for the job. How much it holds is not known. */
function available(worker: SchedulableWorker): number {
  return worker.modelInMemory === null ? worker.memoryBytesFree : worker.memoryBytesTotal;
}

function withoutExcluded(job: QueuedJob, workers: readonly SchedulableWorker[]): readonly SchedulableWorker[] {
  const trusted = workers.filter((worker) => job.failedWorkerIds.filter((id) => id === worker.id).length < FAILURES_TO_EXCLUDE);
  return trusted.length > 0 ? trusted : workers;
}

function tooLarge(job: QueuedJob, memoryBytes: readonly number[], forWhat: string): string {
  const needed = size(job.memoryBytesEstimate, Math.ceil);
  const largest = size(Math.max(...memoryBytes) * MEMORY_SHARE, Math.floor);
  return `needs ${needed} of memory, the largest worker has ${largest} ${forWhat}: lower batch size or sequence length, or add a worker`;
}

function counted(workers: readonly SchedulableWorker[], one: string, many: string): string {
  return workers.length === 1 ? `1 worker ${one}` : `${workers.length} workers ${many}`;
}

const MEBIBYTE = 1024 * 1024;

function size(bytes: number, round: (value: number) => number): string {
  const mebibytes = bytes / MEBIBYTE;
  return mebibytes < 1024 ? `${round(mebibytes)} MiB` : `${(round((mebibytes / 1024) * 10) / 10).toFixed(1)} GiB`;
}

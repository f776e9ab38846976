import { asksForNothing, labelsMatch, selectorKey } from './labels';
import { MEMORY_SHARE } from './memory-fit';
import type { QueuedJob, SchedulableWorker } from './snapshot';

/** Workers in the order in which they are tried: the smallest first, so that large ones stay free for large jobs. */
export interface Fleet {
  readonly workers: readonly SchedulableWorker[];
  readonly indexOf: ReadonlyMap<string, number>;
  /** Some run several jobs at once. */
  readonly hasSlots: boolean;
  /** The pool for a job's kind and selector; made once for all jobs that ask for the same. */
  poolOf(job: Pick<QueuedJob, 'kind' | 'workerSelector'>): WorkerPool;
}

/** Online workers that run a kind of jobs and bear the labels it asks for. */
export interface WorkerPool {
  /** On record with the labels, and those of them that are online, whatever they run. */
  readonly labelled: number;
  readonly labelledOnline: number;
  /** Indices into `Fleet.workers`, by memory. */
  readonly members: Int32Array;
  /** Some of them run several jobs at once. */
  readonly hasSlots: boolean;
  /** By worker index. */
  has(worker: number): boolean;
  /** Position of the first member that is large enough; `members.length` when none is. */
  firstThatHolds(needBytes: number): number;
}

export function fleetOf(workers: readonly SchedulableWorker[]): Fleet {
  const sorted = [...workers].sort((a, b) => a.memoryBytesTotal - b.memoryBytesTotal || (a.id < b.id ? -1 : 1));
  const pools = new Map<string, WorkerPool>();
  /** Of jobs that ask for no labels: most do not, and need no key made of them. */
  const byKind = new Map<string, WorkerPool>();
  return {
    workers: sorted,
    indexOf: new Map(sorted.map((worker, index) => [worker.id, index])),
    hasSlots: sorted.some(({ slots }) => slots > 1),
    poolOf: (job) => {
      const known = asksForNothing(job.workerSelector) ? byKind : pools;
      const key = known === byKind ? job.kind : `${job.kind}\n${selectorKey(job.workerSelector)}`;
      let pool = known.get(key);
      if (pool === undefined) known.set(key, (pool = makePool(job, sorted)));
      return pool;
    },
  };
}

function makePool({ kind, workerSelector }: Pick<QueuedJob, 'kind' | 'workerSelector'>, workers: readonly SchedulableWorker[]): WorkerPool {
  let [labelled, labelledOnline] = [0, 0];
  const members: number[] = [];
  const isMember = new Uint8Array(workers.length);
  workers.forEach((worker, index) => {
    if (!labelsMatch(workerSelector, worker.labels)) return;
    labelled++;
    if (!worker.online) return;
    labelledOnline++;
    if (!worker.jobKinds.includes(kind)) return;
    members.push(index);
    isMember[index] = 1;
  });
  const usable = Float64Array.from(members, (index) => (workers[index]?.memoryBytesTotal ?? 0) * MEMORY_SHARE);
  return {
    labelled,
    labelledOnline,
    members: Int32Array.from(members),
    hasSlots: members.some((index) => (workers[index]?.slots ?? 1) > 1),
    has: (worker) => isMember[worker] === 1,
    firstThatHolds: (needBytes) => {
      let [low, high] = [0, usable.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((usable[middle] ?? 0) >= needBytes) high = middle;
        else low = middle + 1;
      }
      return low;
    },
  };
}

export function isIdle(worker: SchedulableWorker): boolean {
  return worker.online && !worker.cordoned && !worker.busy;
}

export function isReady(worker: SchedulableWorker): boolean {
  return isIdle(worker) && worker.credit > 0;
}

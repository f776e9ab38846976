import { selectorText } from './labels';
import { fits, memoryNeed, MEMORY_SHARE, sizeText } from './memory-fit';
import { PoolLevels } from './pool-level';
import type { QueuedJob, SchedulableWorker } from './snapshot';
import { counted, type WaitingReason } from './waiting-reason';
import type { Fleet, WorkerPool } from './worker-pool';

/** A worker on which a job failed so often gets it again only when no other could ever run it. */
export const FAILURES_TO_EXCLUDE = 2;

/** What the fleet can do for a job, before anybody else is looked at. */
export interface Feasibility {
  readonly pool: WorkerPool;
  readonly needBytes: number;
  /** Position in the pool's members from which on they are large enough. */
  readonly from: number;
  /** Workers the job is kept away from. */
  readonly excluded: ReadonlySet<string>;
  /** It can never run as things are: misconfigured, or too large. */
  readonly impossible: WaitingReason | null;
  /** Nobody can take it now, whoever waits besides it. */
  readonly blocked: WaitingReason | null;
  /** What to say when those that could take it are given to others. */
  readonly busy: WaitingReason;
}

const NONE: ReadonlySet<string> = new Set();

export class Feasibilities {
  private readonly levels: PoolLevels;

  constructor(private readonly fleet: Fleet) {
    this.levels = new PoolLevels(fleet);
  }

  of(job: QueuedJob): Feasibility {
    const pool = this.fleet.poolOf(job);
    const needBytes = memoryNeed(job);
    const from = pool.firstThatHolds(needBytes);
    const excluded = this.exclusions(job, pool, from);
    const { busy, busyToShare, blocked, largestAvailableBytes } = this.levels.at(pool, from, job, excluded);
    const impossible = this.impossibleReason(job, pool, from, needBytes);
    const isShort = largestAvailableBytes > 0 && !fits(needBytes, largestAvailableBytes);
    return { pool, needBytes, from, excluded, busy: job.shareKey !== null && pool.hasSlots ? busyToShare : busy, impossible, blocked: blocked ?? (isShort ? { code: 'no_fitting_worker', text: tooLarge(needBytes, largestAvailableBytes, 'free for a job') } : null) };
  }

  private impossibleReason(job: QueuedJob, pool: WorkerPool, from: number, needBytes: number): WaitingReason | null {
    const onRecord = this.fleet.workers.length;
    if (onRecord > 0 && pool.labelled === 0) {
      const who = counted(onRecord, 'is on record and has not', 'are on record and none has');
      return { code: 'misconfigured', text: `asks for a worker with ${selectorText(job.workerSelector)}, ${who}: label a worker so, or submit the job with another worker_selector` };
    }
    if (pool.members.length > 0 && from === pool.members.length) {
      const largest = this.fleet.workers[pool.members.at(-1) ?? -1]?.memoryBytesTotal ?? 0;
      return { code: 'exceeds_every_worker', text: tooLarge(needBytes, largest, 'for a job') };
    }
    return null;
  }

  /** Empty when they are all that could ever run it. */
  private exclusions({ failedWorkerIds }: QueuedJob, pool: WorkerPool, from: number): ReadonlySet<string> {
    if (failedWorkerIds.length < FAILURES_TO_EXCLUDE) return NONE;
    const failures = new Map<string, number>();
    for (const id of failedWorkerIds) failures.set(id, (failures.get(id) ?? 0) + 1);
    const excluded = new Set([...failures].filter(([, count]) => count >= FAILURES_TO_EXCLUDE).map(([id]) => id));
    if (excluded.size === 0) return NONE;
    for (let at = from; at < pool.members.length; at++) {
      const worker = this.fleet.workers[pool.members[at] as number] as SchedulableWorker;
      if (!worker.cordoned && !excluded.has(worker.id)) return excluded;
    }
    return NONE;
  }
}

function tooLarge(needBytes: number, largestBytes: number, forWhat: string): string {
  const largest = sizeText(largestBytes * MEMORY_SHARE, Math.floor);
  return `needs ${sizeText(needBytes, Math.ceil)} of memory, the largest worker has ${largest} ${forWhat}: lower batch size or sequence length, or add a worker`;
}

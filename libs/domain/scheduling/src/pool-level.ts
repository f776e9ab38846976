import { memoryAvailable } from './memory-fit';
import { selectorText } from './labels';
import type { QueuedJob, SchedulableWorker } from './snapshot';
import { counted, type WaitingReason } from './waiting-reason';
import { isReady, isIdle, type Fleet, type WorkerPool } from './worker-pool';

/** The workers of a pool from some memory size up: the same for all jobs that need about as much, so it is worked out once. */
export interface PoolLevel {
  /** Whoever asks, nobody of these can take a job now. */
  readonly blocked: WaitingReason | null;
  /** What to say when those that could take one are given to others. */
  readonly busy: WaitingReason;
  /** Of those that are ready for a job; 0: none is. */
  readonly largestAvailableBytes: number;
}

const NONE: ReadonlySet<string> = new Set();

/** Levels without exclusions, kept per pool and position. */
export class PoolLevels {
  private readonly known = new Map<WorkerPool, (PoolLevel | undefined)[]>();

  constructor(private readonly fleet: Fleet) {}

  /** @param from position in the pool's members */
  at(pool: WorkerPool, from: number, job: QueuedJob): PoolLevel {
    const levels = this.known.get(pool) ?? new Array<PoolLevel | undefined>(pool.members.length + 1).fill(undefined);
    this.known.set(pool, levels);
    return (levels[from] ??= this.without(pool, from, job, NONE));
  }

  /** @param excluded workers that are kept away from the job */
  without(pool: WorkerPool, from: number, job: Pick<QueuedJob, 'kind' | 'workerSelector'>, excluded: ReadonlySet<string>): PoolLevel {
    const fitting: SchedulableWorker[] = [];
    for (let at = from; at < pool.members.length; at++) fitting.push(this.fleet.workers[pool.members[at] as number] as SchedulableWorker);
    const open = fitting.filter((worker) => !worker.cordoned && !excluded.has(worker.id));
    const ready = open.filter(isReady);
    return {
      blocked: blockedReason(pool, job, { fitting: fitting.length, open: open.length, idle: open.filter(isIdle).length, ready: ready.length }),
      busy: { code: 'workers_busy', text: `waiting for a free worker: ${counted(open.length, 'fits and is', 'fit and are')} busy` },
      largestAvailableBytes: ready.reduce((largest, worker) => Math.max(largest, memoryAvailable(worker)), 0),
    };
  }
}

interface Counts {
  readonly fitting: number;
  readonly open: number;
  readonly idle: number;
  readonly ready: number;
}

/** Asks less and less fundamental questions; the first to which no worker answers yes is the reason. */
function blockedReason(pool: WorkerPool, { kind, workerSelector }: Pick<QueuedJob, 'kind' | 'workerSelector'>, { fitting, open, idle, ready }: Counts): WaitingReason | null {
  const none = (text: string): WaitingReason => ({ code: 'no_fitting_worker', text });
  if (pool.labelledOnline === 0) return none(`waiting for a worker${Object.keys(workerSelector).length === 0 ? '' : ` with ${selectorText(workerSelector)}`}: none is online`);
  if (pool.members.length === 0) return none(`waiting for a worker that runs ${kind} jobs: ${counted(pool.labelledOnline, 'is online and cannot', 'are online and cannot')}`);
  if (open === 0) return none(`waiting for a worker: ${counted(fitting, 'fits but is cordoned', 'fit but are cordoned')}`);
  if (idle > 0 && ready === 0) return none(`waiting for a worker: ${counted(idle, 'fits but is not ready', 'fit but are not ready')} for a job yet`);
  return null;
}

import { memoryAvailable } from './memory-fit';
import { selectorText } from './labels';
import type { QueuedJob, SchedulableWorker } from './snapshot';
import { counted, type WaitingReason } from './waiting-reason';
import { isReady, isIdle, type Fleet, type WorkerPool } from './worker-pool';

/** What a job finds among the workers of its pool that are large enough. */
export interface PoolLevel {
  /** Whoever asks, nobody of these can take a job now. */
  readonly blocked: WaitingReason | null;
  /** What to say when those that could take one are given to others. */
  readonly busy: WaitingReason;
  /** The same for a job that may also run beside others. */
  readonly busyToShare: WaitingReason;
  /** Of those that are ready for a job; 0: none is. */
  readonly largestAvailableBytes: number;
}

interface Counts {
  readonly fitting: number;
  /** Not cordoned. */
  readonly open: number;
  /** Of the cordoned ones, the first few. */
  readonly cordoned: readonly Pick<SchedulableWorker, 'id' | 'name'>[];
  readonly idle: number;
  readonly ready: number;
}

interface KnownLevel extends PoolLevel {
  readonly counts: Counts;
}

/** Named in a reason; more are counted. */
const NAMED_MAX = 3;

type Asked = Pick<QueuedJob, 'kind' | 'workerSelector'>;

/** Of the members of a pool from each place on. */
interface Suffixes {
  readonly open: Int32Array;
  readonly idle: Int32Array;
  readonly ready: Int32Array;
  readonly largestAvailableBytes: Float64Array;
}

/** The same for all jobs that need about as much memory, so it is worked out once per pool and position. */
export class PoolLevels {
  private readonly known = new Map<WorkerPool, { readonly levels: (KnownLevel | undefined)[]; readonly suffixes: Suffixes }>();

  constructor(private readonly fleet: Fleet) {}

  /** @param from position in the pool's members from which on they are large enough    @param excluded workers that are kept away from the job */
  at(pool: WorkerPool, from: number, asked: Asked, excluded: ReadonlySet<string>): PoolLevel {
    let known = this.known.get(pool);
    if (known === undefined) this.known.set(pool, (known = { levels: new Array<KnownLevel | undefined>(pool.members.length + 1).fill(undefined), suffixes: this.suffixesOf(pool) }));
    const level = (known.levels[from] ??= this.workOut(pool, from, asked, known.suffixes));
    return excluded.size === 0 ? level : this.without(excluded, { pool, from, asked, level });
  }

  private suffixesOf(pool: WorkerPool): Suffixes {
    const count = pool.members.length;
    const [open, idle, ready, largestAvailableBytes] = [new Int32Array(count + 1), new Int32Array(count + 1), new Int32Array(count + 1), new Float64Array(count + 1)] as const;
    for (let at = count - 1; at >= 0; at--) {
      const worker = this.member(pool, at);
      open[at] = (open[at + 1] as number) + Number(!worker.cordoned);
      idle[at] = (idle[at + 1] as number) + Number(isIdle(worker));
      ready[at] = (ready[at + 1] as number) + Number(isReady(worker));
      largestAvailableBytes[at] = Math.max(largestAvailableBytes[at + 1] as number, isReady(worker) ? memoryAvailable(worker) : 0);
    }
    return { open, idle, ready, largestAvailableBytes };
  }

  private workOut(pool: WorkerPool, from: number, asked: Asked, suffixes: Suffixes): KnownLevel {
    const [fitting, open] = [pool.members.length - from, suffixes.open[from] as number];
    const cordoned: SchedulableWorker[] = [];
    for (let at = from; cordoned.length < Math.min(NAMED_MAX, fitting - open); at++) {
      const worker = this.member(pool, at);
      if (worker.cordoned) cordoned.push(worker);
    }
    return levelOf(pool, asked, { fitting, open, cordoned, idle: suffixes.idle[from] as number, ready: suffixes.ready[from] as number }, suffixes.largestAvailableBytes[from] as number);
  }

  private without(excluded: ReadonlySet<string>, { pool, from, asked, level }: { readonly pool: WorkerPool; readonly from: number; readonly asked: Asked; readonly level: KnownLevel }): PoolLevel {
    let { fitting, open, idle, ready } = level.counts;
    let { largestAvailableBytes } = level;
    const cordoned = level.counts.cordoned.filter(({ id }) => !excluded.has(id));
    for (const id of excluded) {
      const index = this.fleet.indexOf.get(id) ?? -1;
      const worker = this.fleet.workers[index];
      if (worker === undefined || !pool.has(index) || index < (pool.members[from] ?? Infinity)) continue;
      fitting--;
      if (!worker.cordoned) open--;
      if (isIdle(worker)) idle--;
      if (!isReady(worker)) continue;
      ready--;
      if (memoryAvailable(worker) === largestAvailableBytes) largestAvailableBytes = this.largestAvailable(pool, from, excluded);
    }
    return levelOf(pool, asked, { fitting, open, cordoned, idle, ready }, largestAvailableBytes);
  }

  private largestAvailable(pool: WorkerPool, from: number, excluded: ReadonlySet<string>): number {
    let largest = 0;
    for (let at = from; at < pool.members.length; at++) {
      const worker = this.member(pool, at);
      if (isReady(worker) && !excluded.has(worker.id)) largest = Math.max(largest, memoryAvailable(worker));
    }
    return largest;
  }

  private member(pool: WorkerPool, at: number): SchedulableWorker {
    return this.fleet.workers[pool.members[at] as number] as SchedulableWorker;
  }
}

function levelOf(pool: WorkerPool, asked: Asked, counts: Counts, largestAvailableBytes: number): KnownLevel {
  const areBusy = `${counted(counts.open, 'fits and is', 'fit and are')} busy`;
  return {
    blocked: blockedReason(pool, asked, counts),
    busy: { code: 'workers_busy', text: `waiting for a free worker: ${areBusy}` },
    busyToShare: { code: 'workers_busy', text: `waiting for a free worker or a place beside jobs on its base model: ${areBusy}` },
    largestAvailableBytes,
    counts,
  };
}

/** Asks less and less fundamental questions; the first to which no worker answers yes is the reason. */
function blockedReason(pool: WorkerPool, { kind, workerSelector }: Asked, { fitting, open, cordoned, idle, ready }: Counts): WaitingReason | null {
  const none = (text: string): WaitingReason => ({ code: 'no_fitting_worker', text });
  if (pool.labelledOnline === 0) return none(`waiting for a worker${Object.keys(workerSelector).length === 0 ? '' : ` with ${selectorText(workerSelector)}`}: none is online`);
  if (pool.members.length === 0) return none(`waiting for a worker that runs ${kind} jobs: ${counted(pool.labelledOnline, 'is online and cannot', 'are online and cannot')}`);
  if (open === 0) return none(`waiting for a worker: ${counted(fitting, 'fits but is cordoned', 'fit but are cordoned')}${releaseOf(cordoned, fitting)}`);
  if (idle > 0 && ready === 0) return none(`waiting for a worker: ${counted(idle, 'fits but is not ready', 'fit but are not ready')} for a job yet`);
  return null;
}

/** Whom to look after, and how it is let in again: nobody else can. */
function releaseOf(cordoned: Counts['cordoned'], fitting: number): string {
  const [first] = cordoned;
  if (first === undefined) return '';
  const more = fitting > cordoned.length ? ` and ${fitting - cordoned.length} more` : '';
  return ` (${cordoned.map(({ name }) => name).join(', ')}${more}). "tunefleet workers" says why; "tunefleet workers uncordon ${first.name}" lets ${fitting === 1 ? 'it' : 'that one'} take jobs again`;
}

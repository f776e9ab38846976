import type { Feasibility } from './feasibility';
import { expectedEndMs } from './running-view';
import type { QueuedJob, Snapshot } from './snapshot';
import { SuffixMinima } from './suffix-minima';
import type { Fleet, WorkerPool } from './worker-pool';

interface PoolForecast {
  readonly minima: SuffixMinima;
  /** Place in the pool by worker index; -1: not a member. */
  readonly placeOf: Int32Array;
}

/** When each worker will be free, moved on with every job that is put on it in thought. Infinity: nobody knows. */
export class Forecast {
  private readonly freeAtMs: Float64Array;
  private readonly pools = new Map<WorkerPool, PoolForecast>();

  constructor(
    fleet: Fleet,
    snapshot: Pick<Snapshot, 'running'>,
    placed: readonly { readonly job: QueuedJob; readonly worker: number }[],
    nowMs: number,
  ) {
    this.freeAtMs = Float64Array.from(fleet.workers, (worker) => (worker.cordoned || worker.busy ? Infinity : nowMs));
    // The last of those that share it.
    const ends = new Map<number, number>();
    for (const running of snapshot.running) {
      const index = fleet.indexOf.get(running.workerId);
      if (index !== undefined && fleet.workers[index]?.cordoned === false) ends.set(index, Math.max(ends.get(index) ?? 0, expectedEndMs(running, nowMs)));
    }
    for (const { job, worker } of placed) ends.set(worker, Math.max(ends.get(worker) ?? 0, endOf(job, nowMs)));
    for (const [worker, endMs] of ends) this.freeAtMs[worker] = endMs;
  }

  /** Puts the job on the worker that will be free first. @returns when it starts; Infinity: cannot be told */
  next(job: QueuedJob, { pool, from }: Pick<Feasibility, 'pool' | 'from'>): number {
    const place = this.of(pool).minima.smallestFrom(from);
    if (place < 0) return Infinity;
    const worker = pool.members[place] as number;
    const startMs = Math.max(this.freeAtMs[worker] as number, job.notBeforeMs ?? 0);
    this.freeAtMs[worker] = endOf(job, startMs);
    for (const { minima, placeOf } of this.pools.values()) {
      const at = placeOf[worker] as number;
      if (at >= 0) minima.set(at, this.freeAtMs[worker] as number);
    }
    return startMs;
  }

  private of(pool: WorkerPool): PoolForecast {
    const known = this.pools.get(pool);
    if (known !== undefined) return known;
    const placeOf = new Int32Array(this.freeAtMs.length).fill(-1);
    pool.members.forEach((worker, place) => (placeOf[worker] = place));
    const made = { minima: new SuffixMinima(Float64Array.from(pool.members, (worker) => this.freeAtMs[worker] as number)), placeOf };
    this.pools.set(pool, made);
    return made;
  }
}

function endOf(job: QueuedJob, startMs: number): number {
  return job.secondsEstimate === null ? Infinity : startMs + job.secondsEstimate * 1000;
}

import type { Feasibility } from './feasibility';
import { expectedEndMs } from './running-view';
import type { QueuedJob, RunningJob, SchedulableWorker } from './snapshot';
import { SuffixMinima } from './suffix-minima';
import { isIdle, isReady, type Fleet, type WorkerPool } from './worker-pool';

/** Where nobody knows when a worker will be free: after all that is known, and of such ones the first in order. */
const UNKNOWN_MS = 1e15;
/** A worker that has just ended a job is waited for so long until it says that it is ready for the next. */
const READY_AGAIN_MS = 30_000;

interface PoolMinima {
  /** When its workers will be free, by their place in the pool. */
  readonly minima: SuffixMinima;
  /** Place in the pool by worker index; -1: not a member. */
  readonly placeOf: Int32Array;
}

/**
 * Which busy worker each waiting job is to have next, in the order of the queue, so that none waits longer because others go on sharing what it waits
 * for: others come to those on the worker only if they are gone by the time at which it would have been free anyway.
 */
export class Succession {
  private readonly freeAtMs: Float64Array;
  /** When each would be free for whoever waits for it first. */
  private readonly awaitedFromMs = new Map<number, number>();
  private readonly pools = new Map<WorkerPool, PoolMinima>();
  private readonly isAnyReturning: boolean;

  constructor(
    private readonly fleet: Fleet,
    running: readonly RunningJob[],
    placed: readonly { readonly job: QueuedJob; readonly worker: number }[],
    private readonly nowMs: number,
  ) {
    this.freeAtMs = Float64Array.from(fleet.workers, (worker) => (isReturning(worker, nowMs) ? nowMs : Infinity));
    this.isAnyReturning = this.freeAtMs.includes(nowMs);
    for (const job of running) {
      const worker = fleet.indexOf.get(job.workerId);
      if (worker === undefined || fleet.workers[worker]?.cordoned !== false) continue;
      const before = this.freeAtMs[worker] as number;
      this.freeAtMs[worker] = Math.max(before === Infinity ? 0 : before, Math.min(expectedEndMs(job, nowMs), UNKNOWN_MS));
    }
    for (const { job, worker } of placed) this.freeAtMs[worker] = endOf(job, nowMs);
  }

  /** The job stays and waits for the worker that will be free for it first, or for the one that it is told of. @returns the worker; -1: none is known */
  wait(job: QueuedJob, feasible: Feasibility, workerId: string | null): number {
    const worker = workerId === null ? this.firstFree(feasible) : (this.fleet.indexOf.get(workerId) ?? -1);
    if (worker < 0) return worker;
    const freeAtMs = this.freeAtMs[worker] as number;
    if (!this.awaitedFromMs.has(worker)) this.awaitedFromMs.set(worker, freeAtMs);
    this.setFreeAt(worker, freeAtMs + (job.secondsEstimate === null ? UNKNOWN_MS : job.secondsEstimate * 1000));
    return worker;
  }

  /** The job has come to those on the worker. */
  joined(worker: number, job: QueuedJob): void {
    if (!this.awaitedFromMs.has(worker)) this.setFreeAt(worker, Math.max(this.freeAtMs[worker] as number, endOf(job, this.nowMs)));
  }

  /** Whether the job may come to those on the worker before the ones that wait for it. */
  allows(worker: number, job: QueuedJob): boolean {
    const awaitedFromMs = this.awaitedFromMs.get(worker);
    return awaitedFromMs === undefined || (awaitedFromMs < UNKNOWN_MS && endOf(job, this.nowMs) <= awaitedFromMs);
  }

  /** Until when the job waits for a worker that has just ended another one and will be ready in a moment; null: there is none. */
  returnsUntilMs(feasible: Feasibility): number | null {
    if (!this.isAnyReturning) return null;
    const worker = this.fleet.workers[this.firstFree(feasible)];
    return worker !== undefined && !worker.busy && isReturning(worker, this.nowMs) && (this.freeAtMs[this.fleet.indexOf.get(worker.id) ?? -1] as number) <= this.nowMs
      ? (worker.idleSinceMs ?? 0) + READY_AGAIN_MS
      : null;
  }

  private setFreeAt(worker: number, freeAtMs: number): void {
    this.freeAtMs[worker] = freeAtMs;
    for (const { minima, placeOf } of this.pools.values()) {
      const place = placeOf[worker] as number;
      if (place >= 0) minima.set(place, freeAtMs);
    }
  }

  private firstFree({ pool, from, excluded }: Feasibility): number {
    const { minima, placeOf } = this.minimaOf(pool);
    const kept = excluded.size === 0 ? [] : [...excluded].map((id) => this.fleet.indexOf.get(id) ?? -1).filter((worker) => worker >= 0 && (placeOf[worker] as number) >= 0);
    for (const worker of kept) minima.set(placeOf[worker] as number, Infinity);
    const place = minima.smallestFrom(from);
    for (const worker of kept) minima.set(placeOf[worker] as number, this.freeAtMs[worker] as number);
    return place < 0 ? -1 : (pool.members[place] as number);
  }

  private minimaOf(pool: WorkerPool): PoolMinima {
    const known = this.pools.get(pool);
    if (known !== undefined) return known;
    const placeOf = new Int32Array(this.freeAtMs.length).fill(-1);
    pool.members.forEach((worker, place) => (placeOf[worker] = place));
    const made = { minima: new SuffixMinima(Float64Array.from(pool.members, (worker) => this.freeAtMs[worker] as number)), placeOf };
    this.pools.set(pool, made);
    return made;
  }
}

function isReturning(worker: SchedulableWorker, nowMs: number): boolean {
  return isIdle(worker) && !isReady(worker) && (worker.idleSinceMs ?? -Infinity) + READY_AGAIN_MS > nowMs;
}

function endOf({ secondsEstimate }: QueuedJob, startMs: number): number {
  return secondsEstimate === null ? UNKNOWN_MS : startMs + secondsEstimate * 1000;
}

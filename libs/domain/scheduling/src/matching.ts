import type { Feasibility } from './feasibility';
import { fits, memoryAvailable } from './memory-fit';
import { Reservations } from './reservations';
import type { QueuedJob, SchedulableWorker } from './snapshot';
import type { WaitingReason } from './waiting-reason';
import { loadingRank } from './worker-choice';
import { isReady, type Fleet, type WorkerPool } from './worker-pool';

/** A job whose turn it is. */
export interface Applicant {
  readonly job: QueuedJob;
  readonly feasible: Feasibility;
  readonly turn: number;
  /** Why it has to wait; null: it need not. */
  reason: WaitingReason | null;
  /** The busy worker for which it passes free ones by. */
  awaitedWorkerId: string | null;
}

/**
 * Gives each applicant, in turn, a worker of its own. When all that fit one are taken, those before it move to other workers if that
 * frees one; they are never put out. So the set of applicants served is the best by order, and none is left that could have been
 * served beside those before it.
 * @see Kuhn 1955; that the greedy order is optimal: Edmonds & Fulkerson 1965, transversal matroids
 */
export class Matching {
  readonly reservations = new Reservations();
  private readonly holders: (Applicant | undefined)[];
  private readonly available: Float64Array;
  private freeCount = 0;
  /** Free workers by pool, so that a full one is not searched. */
  private readonly freeByPool = new Map<WorkerPool, number>();
  /** Workers from which a search found no free one: no later search can either, so each pair is looked at once. */
  private readonly exhausted: Uint8Array;
  /** From this need on a pool's jobs cannot be served by moving others: a search for one that needed so much has failed. */
  private readonly hopelessFrom = new Map<WorkerPool, number>();

  constructor(
    private readonly fleet: Fleet,
    private readonly nowMs: number,
  ) {
    this.holders = new Array<Applicant | undefined>(fleet.workers.length).fill(undefined);
    this.exhausted = new Uint8Array(fleet.workers.length);
    this.available = Float64Array.from(fleet.workers, (worker) => (isReady(worker) ? memoryAvailable(worker) : -1));
    for (const bytes of this.available) if (bytes >= 0) this.freeCount++;
  }

  /** The free worker it would take first; null: none is free for it. */
  bestFree(applicant: Applicant): number | null {
    const { job, feasible } = applicant;
    if (this.freeCount === 0 || this.freeIn(feasible.pool) === 0) return null;
    const { members } = feasible.pool;
    let best: number | null = null;
    let bestRank = Infinity;
    for (let at = feasible.from; at < members.length; at++) {
      const worker = members[at] as number;
      if (this.holders[worker] !== undefined || !this.accepts(worker, applicant)) continue;
      const rank = loadingRank(job, this.fleet.workers[worker] as SchedulableWorker);
      if (rank >= bestRank) continue;
      best = worker;
      bestRank = rank;
      if (rank === 0) break;
    }
    return best;
  }

  take(worker: number, applicant: Applicant): void {
    this.holders[worker] = applicant;
    this.freeCount--;
    for (const [pool, free] of this.freeByPool) if (pool.has(worker)) this.freeByPool.set(pool, free - 1);
  }

  /** Moves others so that one becomes free for it. @returns whether it has one now */
  makeRoom(applicant: Applicant): boolean {
    const { pool, needBytes, excluded } = applicant.feasible;
    if (this.freeCount === 0 || needBytes >= (this.hopelessFrom.get(pool) ?? Infinity)) return false;
    const visited = new Set<number>();
    if (this.serve(applicant, visited)) return true;
    for (const worker of visited) this.exhausted[worker] = 1;
    if (excluded.size === 0) this.hopelessFrom.set(pool, needBytes);
    return false;
  }

  placed(): { readonly job: QueuedJob; readonly worker: number }[] {
    return this.holders.flatMap((holder, worker) => (holder === undefined ? [] : [{ job: holder.job, worker }]));
  }

  private serve(applicant: Applicant, visited: Set<number>): boolean {
    const free = this.bestFree(applicant);
    if (free !== null) {
      this.take(free, applicant);
      return true;
    }
    const { members } = applicant.feasible.pool;
    for (let at = applicant.feasible.from; at < members.length; at++) {
      const worker = members[at] as number;
      const holder = this.holders[worker];
      if (holder === undefined || this.exhausted[worker] === 1 || visited.has(worker) || !this.accepts(worker, applicant)) continue;
      visited.add(worker);
      if (this.serve(holder, visited)) {
        this.holders[worker] = applicant;
        return true;
      }
    }
    return false;
  }

  private freeIn(pool: WorkerPool): number {
    const known = this.freeByPool.get(pool);
    if (known !== undefined) return known;
    const free = pool.members.reduce((count, worker) => count + ((this.available[worker] as number) >= 0 && this.holders[worker] === undefined ? 1 : 0), 0);
    this.freeByPool.set(pool, free);
    return free;
  }

  private accepts(worker: number, { job, feasible, turn }: Applicant): boolean {
    return (
      fits(feasible.needBytes, this.available[worker] as number) &&
      (this.available[worker] as number) >= 0 &&
      (feasible.excluded.size === 0 || !feasible.excluded.has((this.fleet.workers[worker] as SchedulableWorker).id)) &&
      this.reservations.allows(worker, job, turn, this.nowMs)
    );
  }
}

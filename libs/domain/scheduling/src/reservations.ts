import type { QueuedJob } from './snapshot';

/** A free worker that is held back for a job that will take it at `fromMs` at the latest. */
export interface Reservation {
  readonly jobId: string;
  /** The job's turn: whoever came before it is not bound by it. */
  readonly turn: number;
  readonly fromMs: number;
}

/**
 * Keeps what is held back for one job from the jobs behind it, except for those that will be gone by then (backfill).
 * @see Lifka 1995, "The ANL/IBM SP scheduling system", for backfilling
 */
export class Reservations {
  /** By worker index. */
  private readonly held = new Map<number, Reservation>();

  /** The first to hold a worker keeps it. */
  hold(worker: number, reservation: Reservation): void {
    if (!this.held.has(worker)) this.held.set(worker, reservation);
  }

  isHeld(worker: number): boolean {
    return this.held.has(worker);
  }

  allows(worker: number, job: QueuedJob, turn: number, nowMs: number): boolean {
    const reservation = this.held.get(worker);
    if (reservation === undefined || turn <= reservation.turn) return true;
    return job.secondsEstimate !== null && nowMs + job.secondsEstimate * 1000 <= reservation.fromMs;
  }
}

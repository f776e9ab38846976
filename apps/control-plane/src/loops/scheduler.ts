import type { Placement, Plan, Preemption, Snapshot } from '@tunefleet/domain-scheduling';
import type { Clock, Logger } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';
import { WaitingNotes } from './waiting-notes';

export interface SchedulerDeps {
  readonly store: Pick<FleetStore, 'schedulingSnapshot' | 'place' | 'preempt' | 'noteWaiting' | 'wake'>;
  readonly plan: (snapshot: Snapshot) => Plan;
  readonly leaseMs: number;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly logger: Logger;
}

export interface PassOutcome {
  readonly placed: number;
  /** When another pass is due though nothing happens; null: at no particular time. */
  readonly lookAgainInMs: number | null;
}

/**
 * Jobs looked at in one pass, shared out among the teams that wait. Most passes look at the heads of the queues, because something has just
 * become free or come; every few seconds one looks further, for reasons and positions, and for what fits behind many that do not.
 */
const HEAD_JOBS = 1_000;
const SNAPSHOT_JOBS = 10_000;
/** The store writes what is asked for side by side together; those that wait for their job get it the sooner the smaller the group. */
const PLACED_AT_ONCE = 100;

/**
 * Reads a snapshot, plans purely, applies with conditional updates. What changed under the plan is dropped by the store and planned anew in
 * the next pass; so any number of replicas may do this at once.
 */
export class Scheduler {
  private readonly notes: WaitingNotes;

  constructor(private readonly deps: SchedulerDeps) {
    this.notes = new WaitingNotes(deps.store, deps.clock);
  }

  async pass(): Promise<PassOutcome> {
    const { store, plan } = this.deps;
    const snapshot = await store.schedulingSnapshot(this.notes.isDue() ? SNAPSHOT_JOBS : HEAD_JOBS);
    if (snapshot.jobs.length === 0) return { placed: 0, lookAgainInMs: null };
    const { placements, preemptions, waiting, lookAgainAtMs } = plan(snapshot);
    const placed = await this.place(placements);
    await this.preempt(preemptions);
    await this.notes.write(waiting, snapshot.nowMs);
    // Something changed under the plan, or there are more jobs than were looked at and room was found: look again at once.
    if (placed < placements.length || (placed > 0 && snapshot.jobsNotShown > 0)) await store.wake('schedule');
    return { placed, lookAgainInMs: lookAgainAtMs === null ? null : Math.max(0, lookAgainAtMs - snapshot.nowMs) };
  }

  /** Side by side: they concern different jobs and workers. */
  private async place(placements: readonly Placement[]): Promise<number> {
    let placed = 0;
    for (let index = 0; index < placements.length; index += PLACED_AT_ONCE) {
      const attempts = await Promise.all(placements.slice(index, index + PLACED_AT_ONCE).map((placement) => this.deps.store.place(placement, this.deps.leaseMs)));
      for (const attempt of attempts) {
        if (attempt === null) continue;
        placed++;
        this.notes.forget(attempt.jobId);
        this.deps.logger.info({ jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch, workerId: attempt.workerId }, 'job placed');
      }
    }
    return placed;
  }

  private async preempt(preemptions: readonly Preemption[]): Promise<void> {
    const { store, logger } = this.deps;
    for (const preemption of preemptions) {
      if ((await store.preempt(preemption)) === 'stale') continue;
      logger.info({ jobIds: preemption.victims.map(({ jobId }) => jobId), workerId: preemption.workerId, forJobId: preemption.forJobId }, 'jobs asked to make room');
    }
  }
}

import type { Plan, Snapshot } from '@tunefleet/domain-scheduling';
import type { Logger } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';

export interface SchedulerDeps {
  readonly store: Pick<FleetStore, 'schedulingSnapshot' | 'place' | 'setWaitingReasons' | 'wake'>;
  readonly plan: (snapshot: Snapshot) => Plan;
  readonly leaseMs: number;
  readonly logger: Logger;
}

/** Jobs looked at in one pass. Those behind them wait even where they would fit, so it is well above any usual queue; a pass over so many takes a fraction of a second. */
const SNAPSHOT_JOBS = 2_000;

/**
 * One pass: read a snapshot, plan purely, apply with conditional updates. A placement whose job or worker changed since is dropped by the
 * store and planned anew in the next pass; so any number of replicas may do this at once.
 * @returns how many jobs were placed
 */
export async function schedulePass({ store, plan, leaseMs, logger }: SchedulerDeps): Promise<number> {
  const snapshot = await store.schedulingSnapshot(SNAPSHOT_JOBS);
  if (snapshot.jobs.length === 0) return 0;
  const { placements, reasons } = plan(snapshot);
  let placed = 0;
  let dropped = 0;
  for (const placement of placements) {
    const attempt = await store.place(placement, leaseMs);
    if (attempt === null) {
      dropped++;
      continue;
    }
    placed++;
    logger.info({ jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch, workerId: attempt.workerId }, 'job placed');
    await store.wake(`worker:${attempt.workerId}`);
  }
  if (reasons.size > 0) await store.setWaitingReasons(reasons);
  // Something changed under the plan, or there are more jobs than were looked at and room was found: look again at once.
  if (dropped > 0 || (placed > 0 && snapshot.jobsNotShown > 0)) await store.wake('schedule');
  return placed;
}

import type { Failure } from '@tunefleet/contracts';
import { judgePace, STOP_GRACE_MS, stuckMessage, type StuckRule } from '@tunefleet/domain-jobs';
import type { FleetStore, QuietAttempt } from '@tunefleet/ports';
import type { AttemptEndings } from '../fleet/attempt-endings';
import { keyOf } from './attempt-key';
import type { Repair } from './reconciler';

export interface FleetWatchDeps {
  readonly store: Pick<FleetStore, 'listQuiet' | 'noteStuck' | 'stopDrained' | 'skipOrphans' | 'explainDependents' | 'listOverdueStops'>;
  readonly endings: Pick<AttemptEndings, 'failed' | 'stopped'>;
  readonly stuckRule: StuckRule;
  readonly overdueStopMs: number;
  readonly repaired: (repair: Repair, fields: object) => void;
}

const BATCH = 100;
/** Reasons written per pass. */
const EXPLAINED = 1_000;

/** The reconciler's eye on jobs that do not go on: stuck attempts, workers whose time to drain is over, jobs that wait for others. */
export class FleetWatch {
  constructor(private readonly deps: FleetWatchDeps) {}

  async stuck(): Promise<void> {
    const { store, stuckRule } = this.deps;
    for (const quiet of await store.listQuiet(stuckRule.noteMsMin, BATCH)) {
      const verdict = judgePace(quiet, stuckRule);
      if (verdict === 'give_up') await this.giveUp(quiet);
      if (verdict === 'stuck' && quiet.attempt.stuckAt === null && (await store.noteStuck(keyOf(quiet.attempt), stuckMessage(quiet)))) this.deps.repaired('stuck_noted', fieldsOf(quiet));
    }
  }

  async drains(): Promise<void> {
    for (const jobId of await this.deps.store.stopDrained(STOP_GRACE_MS)) this.deps.repaired('drain_due', { jobId });
  }

  /** Its worker should have killed the engine at the deadline. The time beyond is for the upload of a checkpoint; then the job goes on from the one before. */
  async overdueStops(): Promise<void> {
    const { store, endings, overdueStopMs } = this.deps;
    for (const attempt of await store.listOverdueStops(overdueStopMs, BATCH)) {
      if ((await endings.stopped(keyOf(attempt), 'the worker did not hand the job back in time')) === 'stale') continue;
      this.deps.repaired('stop_overdue', { jobId: attempt.jobId, attemptId: attempt.id, workerId: attempt.workerId });
    }
  }

  async dependents(): Promise<void> {
    for (const parentId of await this.deps.store.skipOrphans(BATCH)) this.deps.repaired('orphans_skipped', { parentId });
    await this.deps.store.explainDependents(EXPLAINED);
  }

  /** The worker hears with its next beat that its epoch is over, and kills the engine. */
  private async giveUp(quiet: QuietAttempt): Promise<void> {
    const failure: Failure = { class: 'infrastructure', code: 'stuck', message: stuckMessage(quiet), param: null, logTail: [] };
    if ((await this.deps.endings.failed(keyOf(quiet.attempt), failure, 'failed')) === 'applied') this.deps.repaired('stuck_given_up', fieldsOf(quiet));
  }
}

function fieldsOf({ attempt, sinceStepMs, medianStepMs }: QuietAttempt): object {
  return { jobId: attempt.jobId, attemptId: attempt.id, workerId: attempt.workerId, step: attempt.step, sinceStepMs, medianStepMs };
}

import type { RetentionRule } from '@tunefleet/domain-jobs';
import type { Logger } from '@tunefleet/foundation';
import type { RetentionStore } from '@tunefleet/ports';
import { Loop, type LoopRun } from '../loops/loop';
import type { Retention } from './retention';

export interface DailyRetentionDeps {
  readonly retention: Pick<Retention, 'run'>;
  readonly store: Pick<RetentionStore, 'claimTask'>;
  readonly rules: readonly RetentionRule[];
  readonly logger: Logger;
  readonly onRun?: (run: LoopRun) => void;
}

const DAY_MS = 86_400_000;
/** How often a replica asks whether the day is over. */
const ASK_MS = 600_000;

/** Removes by the operator's rules, once a day, on whichever replica comes first. */
export class DailyRetention {
  private readonly loop: Loop;
  private stopping = false;

  constructor(private readonly deps: DailyRetentionDeps) {
    this.loop = new Loop(() => this.pass(), { name: 'retention', intervalMs: ASK_MS, logger: deps.logger, onRun: deps.onRun });
  }

  start(): void {
    if (this.deps.rules.length > 0) this.loop.start();
  }

  /** Resolves after the batch that is under way. What is left is a later run's. */
  stop(): Promise<void> {
    this.stopping = true;
    return this.loop.stop();
  }

  private async pass(): Promise<void> {
    const { retention, store, rules } = this.deps;
    if (await store.claimTask('retention', DAY_MS)) await retention.run(rules, { apply: true, isOver: () => this.stopping });
  }
}

import { systemTimers, type Logger, type Timer, type Timers } from '@tunefleet/foundation';
import type { FleetStore, JobQueue, Outbox } from '@tunefleet/ports';
import { Loop, type LoopRun, type LoopStatus } from './loop';
import { relayOutbox } from './outbox-relay';
import { Reconciler, type ReconcilerDeps, type Repair } from './reconciler';
import { Scheduler, type SchedulerDeps } from './scheduler';

export interface ControlLoopsDeps extends Omit<ReconcilerDeps, 'outbox' | 'queue' | 'store'>, Omit<SchedulerDeps, 'store' | 'logger' | 'clock'> {
  readonly store: FleetStore;
  readonly outbox: Outbox;
  readonly queue: JobQueue;
  readonly logger: Logger;
  readonly intervals?: Partial<ControlLoopIntervals>;
  readonly timers?: Timers;
  readonly onRun?: (run: LoopRun) => void;
  /** In [0, 1), for jitter. */
  readonly random?: () => number;
}

export interface ControlLoopIntervals {
  readonly relayMs: number;
  readonly scheduleMs: number;
  readonly reconcileMs: number;
}

const defaultIntervals: ControlLoopIntervals = { relayMs: 1_000, scheduleMs: 5_000, reconcileMs: 5_000 };

/** A busy fleet wakes the scheduler hundreds of times a second; a pass costs a few milliseconds for each hundred workers, whatever it places. */
const SCHEDULER_REST_MS = 10;

/** The loops of one replica. Each reads the record and may run on every replica at once. */
export class ControlLoops {
  private readonly relay: Loop;
  private readonly scheduler: Loop;
  private readonly reconcile: Loop;
  private readonly watch: Loop;
  private readonly reconciler: Reconciler;
  private wakes: { close(): Promise<void> } | null = null;
  private readonly timers: Timers;
  private scheduleAgain: Timer | null = null;

  constructor(private readonly deps: ControlLoopsDeps) {
    const { logger, store } = deps;
    const timers = deps.timers ?? systemTimers;
    this.timers = timers;
    const shared = { logger, timers, onRun: deps.onRun, ...(deps.random === undefined ? {} : { random: deps.random }) };
    const intervals = { ...defaultIntervals, ...deps.intervals };
    this.reconciler = new Reconciler(deps);
    this.relay = new Loop(() => relayOutbox(deps.outbox, deps.queue), { name: 'outbox-relay', intervalMs: intervals.relayMs, ...shared });
    const scheduler = new Scheduler({ store, plan: deps.plan, leaseMs: deps.leaseMs, clock: deps.clock, logger });
    this.scheduler = new Loop(async () => this.scheduleAgainIn((await scheduler.pass()).lookAgainInMs, intervals.scheduleMs), { name: 'scheduler', intervalMs: intervals.scheduleMs, restMs: SCHEDULER_REST_MS, ...shared });
    this.reconcile = new Loop(() => this.reconciler.pass(), { name: 'reconciler', intervalMs: intervals.reconcileMs, ...shared });
    this.watch = new Loop(() => this.reconciler.keepWatch(), { name: 'watch', intervalMs: Math.min(intervals.reconcileMs, deps.leaseMs / 6), ...shared });
  }

  async start(): Promise<void> {
    this.wakes = await this.deps.store.onWake((topic) => {
      if (topic === 'schedule') this.scheduler.wake();
    });
    for (const loop of this.all()) loop.start();
  }

  /** After a job was written: its wake-up leaves at once instead of within a second. */
  wakeRelay(): void {
    this.relay.wake();
  }

  wakeScheduler(): void {
    this.scheduler.wake();
  }

  async stop(): Promise<void> {
    await this.wakes?.close();
    await Promise.all(this.all().map((loop) => loop.stop()));
    this.scheduleAgain?.cancel();
  }

  status(): { readonly loops: readonly LoopStatus[]; readonly repairs: Readonly<Record<Repair, number>> } {
    return { loops: this.all().map((loop) => loop.status()), repairs: this.reconciler.repairs() };
  }

  /** A pass sooner than the timer's, when the time itself changes something. */
  private scheduleAgainIn(ms: number | null, intervalMs: number): void {
    this.scheduleAgain?.cancel();
    this.scheduleAgain = ms === null || ms >= intervalMs ? null : this.timers.after(ms, () => this.scheduler.wake());
  }

  private all(): readonly Loop[] {
    return [this.relay, this.scheduler, this.reconcile, this.watch];
  }
}

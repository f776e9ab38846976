import { backoffDelayMs, systemTimers, type BackoffPolicy, type Logger, type Timer, type Timers } from '@tunefleet/foundation';

export interface LoopOptions {
  readonly name: string;
  /** Runs at least this often, whether woken or not: losing every wake-up costs latency only. */
  readonly intervalMs: number;
  /** After a run, wakes are gathered for so long before the next. Default 0. */
  readonly restMs?: number;
  readonly logger: Logger;
  /** Delay after an error; defaults to 1 s doubling to 30 s, jittered. */
  readonly backoff?: BackoffPolicy;
  readonly timers?: Timers;
  /** After every run, however it ended. */
  readonly onRun?: ((run: LoopRun) => void) | undefined;
  /** In [0, 1), for jitter. */
  readonly random?: () => number;
}

export interface LoopRun {
  readonly loop: string;
  readonly ms: number;
  readonly failed: boolean;
}

export interface LoopStatus {
  readonly name: string;
  readonly runs: number;
  readonly errors: number;
  readonly consecutiveErrors: number;
  readonly lastDurationMs: number;
}

const DEFAULT_BACKOFF: BackoffPolicy = { firstMs: 1_000, factor: 2, maxMs: 30_000 };

/**
 * Runs one body again and again: on a timer and when woken. Never twice at once; wakes during a run cause exactly one more.
 * The body takes no input, because it reads what there is to do from the record.
 */
export class Loop {
  private readonly timers: Timers;
  private timer: Timer | null = null;
  private rest: Timer | null = null;
  private running: Promise<void> | null = null;
  private wanted = false;
  private stopped = true;
  private runs = 0;
  private errors = 0;
  private consecutiveErrors = 0;
  private lastDurationMs = 0;

  constructor(
    private readonly body: () => Promise<unknown>,
    private readonly options: LoopOptions,
  ) {
    this.timers = options.timers ?? systemTimers;
  }

  start(): void {
    this.stopped = false;
    this.wake();
  }

  /** Runs soon. While errors back off, a wake does not cut the delay short: a broken dependency is not hammered. */
  wake(): void {
    if (this.stopped) return;
    if (this.running !== null || this.rest !== null) {
      this.wanted = true;
      return;
    }
    if (this.consecutiveErrors > 0 && this.timer !== null) return;
    this.launch();
  }

  /** Resolves when the run that is under way, if any, has ended. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.timer?.cancel();
    this.timer = null;
    this.rest?.cancel();
    this.rest = null;
    await this.running;
  }

  status(): LoopStatus {
    const { runs, errors, consecutiveErrors, lastDurationMs } = this;
    return { name: this.options.name, runs, errors, consecutiveErrors, lastDurationMs };
  }

  private launch(): void {
    this.timer?.cancel();
    this.timer = null;
    this.rest?.cancel();
    this.rest = null;
    this.wanted = false;
    this.running = this.runOnce().finally(() => {
      this.running = null;
      if (this.stopped) return;
      this.timer = this.timers.after(this.delayMs(), () => this.launch());
      if (this.consecutiveErrors > 0) return;
      const { restMs = 0 } = this.options;
      if (restMs > 0) this.rest = this.timers.after(restMs, () => this.endRest());
      else this.endRest();
    });
  }

  private endRest(): void {
    this.rest = null;
    if (this.wanted) this.launch();
  }

  private async runOnce(): Promise<void> {
    const startedAt = performance.now();
    try {
      await this.body();
      this.consecutiveErrors = 0;
    } catch (error) {
      this.errors++;
      this.consecutiveErrors++;
      this.options.logger.error({ err: error, loop: this.options.name, consecutiveErrors: this.consecutiveErrors }, 'loop run failed');
    }
    this.runs++;
    this.lastDurationMs = performance.now() - startedAt;
    this.options.onRun?.({ loop: this.options.name, ms: this.lastDurationMs, failed: this.consecutiveErrors > 0 });
  }

  private delayMs(): number {
    if (this.consecutiveErrors === 0) return this.options.intervalMs;
    return backoffDelayMs(this.options.backoff ?? DEFAULT_BACKOFF, this.consecutiveErrors, this.options.random);
  }
}

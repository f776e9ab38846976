import type { Clock } from '@tunefleet/foundation';
import type { JobEvents } from './job-context';

const REPORT_INTERVAL_MS = 200;
/** Of passes within a step, which say no more than that the engine goes on. */
const PASS_INTERVAL_MS = 5_000;
/** Weight of the newest step in the moving rate: about the last ten steps count. */
const NEWEST_WEIGHT = 0.1;

/** Speed and time left of a job's steps; at most five reports a second, and always the last step's. */
export class ProgressMeter {
  #lastReportMs = -Infinity;
  #secondsPerStep: number | null = null;
  #tokensPerSecond = 0;
  #microBatchSize: number | null = null;

  constructor(
    private readonly events: JobEvents,
    private readonly clock: Clock,
    private readonly totalSteps: number,
  ) {}

  get tokensPerSecond(): number {
    return this.#tokensPerSecond;
  }

  /** @param step the last one done    @param steps how many were done together    @param tokens fed to the model in them    @param seconds they took */
  stepDone(step: number, phase: string, tokens: number, seconds: number, steps = 1): void {
    const each = seconds / steps;
    const weight = 1 - (1 - NEWEST_WEIGHT) ** steps;
    this.#secondsPerStep = this.#secondsPerStep === null ? each : (1 - weight) * this.#secondsPerStep + weight * each;
    this.#tokensPerSecond = seconds > 0 ? tokens / seconds : 0;
    this.report(step, phase);
  }

  /** Passes have so many examples from now on; said at once, because the next one may not return. */
  passesOf(microBatchSize: number, step: number): void {
    this.#microBatchSize = microBatchSize;
    this.#lastReportMs = -Infinity;
    this.report(step, 'train');
  }

  /** A pass was made; steps of many passes may take long. */
  passDone(step: number, phase: string): void {
    if (this.clock.monotonic() - this.#lastReportMs >= PASS_INTERVAL_MS) this.report(step, phase);
  }

  /** Something other than a step went on. */
  report(step: number, phase: string): void {
    const now = this.clock.monotonic();
    if (now - this.#lastReportMs < REPORT_INTERVAL_MS && step < this.totalSteps) return;
    this.#lastReportMs = now;
    this.events.progress({
      step,
      totalSteps: this.totalSteps,
      phase,
      tokensPerSecond: this.#tokensPerSecond,
      etaSeconds: Math.max(0, this.totalSteps - step) * (this.#secondsPerStep ?? 0),
      ...(this.#microBatchSize === null ? {} : { microBatchSize: this.#microBatchSize }),
    });
  }
}

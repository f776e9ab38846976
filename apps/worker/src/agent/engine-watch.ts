import { judgeSilence, silenceMessage, type SilenceRule } from '@tunefleet/domain-jobs';
import { systemTimers, type Clock, type Timer, type Timers } from '@tunefleet/foundation';

export interface EngineWatchOptions {
  readonly rule: SilenceRule;
  readonly clock: Clock;
  readonly timers?: Timers;
  /** Once per silence. */
  readonly onStuck: (message: string, phase: string | null) => void;
  /** After `onStuck`: it has spoken again. */
  readonly onHeardAgain: (silentMs: number) => void;
  /** Once; the watch is over. */
  readonly onGivenUp: (message: string) => void;
}

/** Watches how long the engine says nothing of a job that it has, on this machine's monotonic clock: a cut network is no silence of the engine. */
export class EngineWatch {
  private readonly timers: Timers;
  private timer: Timer | null = null;
  private heardAt = 0;
  private phase: string | null = null;
  private isNoted = false;

  constructor(private readonly options: EngineWatchOptions) {
    this.timers = options.timers ?? systemTimers;
  }

  start(): void {
    this.heardAt = this.options.clock.monotonic();
    this.look();
  }

  /** @param phase what it is doing, if it said so */
  heard(phase?: string): void {
    const silentMs = this.silentMs;
    this.heardAt = this.options.clock.monotonic();
    if (phase !== undefined) this.phase = phase;
    if (!this.isNoted) return;
    this.isNoted = false;
    this.options.onHeardAgain(silentMs);
    if (this.timer !== null) this.look();
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = null;
  }

  private get silentMs(): number {
    return this.options.clock.monotonic() - this.heardAt;
  }

  private look(): void {
    this.stop();
    const { silentMs } = this;
    const { verdict, nextInMs } = judgeSilence(silentMs, this.options.rule);
    if (nextInMs !== null) this.timer = this.timers.after(Math.ceil(nextInMs), () => this.look());
    if (verdict === 'give_up') this.options.onGivenUp(silenceMessage(silentMs, this.phase));
    if (verdict !== 'stuck' || this.isNoted) return;
    this.isNoted = true;
    this.options.onStuck(silenceMessage(silentMs, this.phase), this.phase);
  }
}

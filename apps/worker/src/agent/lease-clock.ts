import { systemTimers, type Clock, type Timer, type Timers } from '@tunefleet/foundation';

/** Watches one attempt's lease on this machine's monotonic clock and says once when it is nearly over. */
export class LeaseClock {
  private timer: Timer | null = null;
  private deadlineMs = Number.POSITIVE_INFINITY;

  /** @param marginMs how long before its end the lease counts as over, for the way and for clocks that run apart; a sixth of it at most */
  constructor(
    private readonly clock: Clock,
    private readonly marginMs: number,
    private readonly onOver: () => void,
    private readonly timers: Timers = systemTimers,
  ) {}

  /** The lease is valid for so long from now. */
  renew(validForMs: number): void {
    const leftMs = Math.max(0, validForMs - Math.min(this.marginMs, validForMs / 6));
    this.deadlineMs = this.clock.monotonic() + leftMs;
    this.timer?.cancel();
    this.timer = this.timers.after(leftMs, this.onOver);
  }

  get isOver(): boolean {
    return this.clock.monotonic() >= this.deadlineMs;
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = null;
  }
}

import type { Clock } from '@tunefleet/foundation';

/** Watches one attempt's lease on this machine's monotonic clock and says once when it is nearly over. */
export class LeaseClock {
  private timer: NodeJS.Timeout | null = null;
  private deadlineMs = Number.POSITIVE_INFINITY;

  /** @param marginMs how long before its end the lease counts as over, for the way and for clocks that run apart */
  constructor(
    private readonly clock: Clock,
    private readonly marginMs: number,
    private readonly onOver: () => void,
  ) {}

  /** The lease is valid for so long from now. */
  renew(validForMs: number): void {
    const leftMs = Math.max(0, validForMs - this.marginMs);
    this.deadlineMs = this.clock.monotonic() + leftMs;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(this.onOver, leftMs);
  }

  get isOver(): boolean {
    return this.clock.monotonic() >= this.deadlineMs;
  }

  stop(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }
}

import { ManualClock, type Timer, type Timers } from '@tunefleet/foundation';

/** Time that passes when a test says so. */
export class ManualTimers implements Timers {
  readonly clock = new ManualClock(0);
  private due: { readonly at: number; readonly run: () => void }[] = [];

  after(ms: number, run: () => void): Timer {
    const timer = { at: this.clock.monotonic() + ms, run };
    this.due.push(timer);
    return { cancel: () => void (this.due = this.due.filter((each) => each !== timer)) };
  }

  every(): Timer {
    throw new Error('not used');
  }

  /** Timers that wait. */
  get waiting(): number {
    return this.due.length;
  }

  pass(ms: number): void {
    for (const end = this.clock.monotonic() + ms; ; ) {
      const next = this.due.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      this.clock.advance((next?.at ?? end) - this.clock.monotonic());
      if (next === undefined) return;
      this.due = this.due.filter((each) => each !== next);
      next.run();
    }
  }
}

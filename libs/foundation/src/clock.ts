/** Time as the code sees it, so that tests and simulations can own it. */
export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch. Never compared across machines. */
  now(): number;
  /** Monotonic clock in milliseconds; only differences mean anything. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};

/** A clock that moves only when told to. */
export class ManualClock implements Clock {
  constructor(private nowMs = 0) {}
  now(): number {
    return this.nowMs;
  }
  monotonic(): number {
    return this.nowMs;
  }
  advance(ms: number): void {
    this.nowMs += ms;
  }
}

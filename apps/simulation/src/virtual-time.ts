import type { Clock, Timer, Timers } from '@tunefleet/foundation';

interface Event {
  readonly atMs: number;
  /** Of two at the same time, the one made first comes first. */
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

/** Time that moves from event to event. Everything in a simulation hangs on this one queue, so a seed says all. */
export class VirtualTime implements Clock, Timers {
  private readonly heap: Event[] = [];
  private order = 0;

  constructor(private nowMs: number) {}

  now(): number {
    return this.nowMs;
  }

  monotonic(): number {
    return this.nowMs;
  }

  after(ms: number, run: () => void): Timer {
    const event: Event = { atMs: this.nowMs + Math.max(0, ms), order: this.order++, run, cancelled: false };
    this.push(event);
    return { cancel: () => void (event.cancelled = true) };
  }

  every(ms: number, run: () => void): Timer {
    let timer: Timer;
    let stopped = false;
    const again = (): void => {
      run();
      if (!stopped) timer = this.after(ms, again);
    };
    timer = this.after(ms, again);
    return {
      cancel: () => {
        stopped = true;
        timer.cancel();
      },
    };
  }

  /** Runs the next event and all that follows from it at once. False: there is none. */
  async step(): Promise<boolean> {
    const event = this.pop();
    if (event === undefined) return false;
    if (event.cancelled) return true;
    this.nowMs = Math.max(this.nowMs, event.atMs);
    event.run();
    // Promises that are settled run to their end before the next turn of Node's loop.
    await new Promise<void>((resolve) => setImmediate(resolve));
    return true;
  }

  private push(event: Event): void {
    const { heap } = this;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent] as Event)) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  private pop(): Event | undefined {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (!isBefore(heap[child] as Event, last)) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** The time of one machine: its clocks are off and run at their own rate, and what it waits for never comes once it has died. */
export class MachineTime implements Clock, Timers {
  private dead = false;

  constructor(
    private readonly time: VirtualTime,
    private readonly skew: { readonly offsetMs: number; readonly rate: number },
  ) {}

  now(): number {
    return Math.round(this.time.now() * this.skew.rate + this.skew.offsetMs);
  }

  monotonic(): number {
    return this.time.now() * this.skew.rate;
  }

  after(ms: number, run: () => void): Timer {
    return this.time.after(ms / this.skew.rate, () => this.dead || run());
  }

  every(ms: number, run: () => void): Timer {
    const timer = this.time.every(ms / this.skew.rate, () => {
      if (this.dead) timer.cancel();
      else run();
    });
    return timer;
  }

  kill(): void {
    this.dead = true;
  }

  get isDead(): boolean {
    return this.dead;
  }
}

import type { Clock } from '@tunefleet/foundation';

/** Wall time by phase, seconds, in the order in which they began. */
export class Phases {
  readonly #seconds: Record<string, number> = {};

  constructor(private readonly clock: Clock) {}

  get seconds(): Readonly<Record<string, number>> {
    return { ...this.#seconds };
  }

  async measure<T>(name: string, work: () => Promise<T> | T): Promise<T> {
    const startedAt = this.clock.monotonic();
    try {
      return await work();
    } finally {
      this.#seconds[name] = (this.clock.monotonic() - startedAt) / 1000;
    }
  }
}

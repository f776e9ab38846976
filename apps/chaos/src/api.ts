import type { TunefleetClient } from '@tunefleet/client-sdk';
import { errorCode, sleep } from '@tunefleet/foundation';
import type { Random } from '../../simulation/src/random';

const AGAIN_MS = 200;

/** The API as clients behind a load balancer see it: any replica, and another one when the first does not answer. */
export class Api {
  /** HTTP status, or `none` when nobody answered, of what was not answered as wanted. */
  readonly refusals = new Map<string, number>();

  constructor(
    private readonly clients: readonly TunefleetClient[],
    private readonly random: Random,
  ) {}

  /**
   * @param call must do no harm when done twice
   * @returns null when nobody answered in time: whether it was done is not known
   * @throws what a replica refused for good (4xx)
   */
  async ask<T>(call: (client: TunefleetClient) => Promise<T>, patienceMs = 20_000): Promise<T | null> {
    const from = this.random.int(0, this.clients.length - 1);
    const deadline = performance.now() + patienceMs;
    for (let attempt = 0; ; attempt++) {
      try {
        return await call(this.clients[(from + attempt) % this.clients.length] as TunefleetClient);
      } catch (error) {
        const status = (error as { status?: number | null }).status ?? null;
        const seen = status === null ? `none (${errorCode(error)})` : `${status}`;
        this.refusals.set(seen, (this.refusals.get(seen) ?? 0) + 1);
        if (status !== null && status >= 400 && status < 500 && status !== 429) throw error;
        if (performance.now() > deadline) return null;
        await sleep(AGAIN_MS);
      }
    }
  }
}

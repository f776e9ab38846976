import type { WaitingJob } from '@tunefleet/domain-scheduling';
import type { Clock } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';

/** Every placement moves the positions of all that wait behind it, so positions and forecasts are written at most this often; reasons at once. */
const POSITIONS_EVERY_MS = 5_000;

/** Tells waiting jobs what the plan says of them, without writing the whole queue on every pass. */
export class WaitingNotes {
  private told: ReadonlyMap<string, WaitingJob> = new Map();
  private allToldAtMs = -Infinity;

  constructor(
    private readonly store: Pick<FleetStore, 'noteWaiting'>,
    private readonly clock: Pick<Clock, 'monotonic'>,
  ) {}

  async write(waiting: ReadonlyMap<string, WaitingJob>): Promise<void> {
    const nowMs = this.clock.monotonic();
    const isDue = nowMs - this.allToldAtMs >= POSITIONS_EVERY_MS;
    const news = isDue ? waiting : new Map([...waiting].filter(([id, { code, text }]) => this.told.get(id)?.code !== code || this.told.get(id)?.text !== text));
    if (news.size > 0) await this.store.noteWaiting(news);
    this.told = waiting;
    if (isDue) this.allToldAtMs = nowMs;
  }
}

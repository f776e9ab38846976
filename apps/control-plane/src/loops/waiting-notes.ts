import type { WaitingJob } from '@tunefleet/domain-scheduling';
import type { Clock } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';

/** Every placement moves the positions of all that wait behind it, so positions and forecasts are written at most this often; reasons at once. */
const POSITIONS_EVERY_MS = 5_000;
/** Then all are written: another replica may have told something else meanwhile. */
const ALL_EVERY_MS = 60_000;
/** A job far behind is told its place to within 2 %, and its start to within 2 % of the wait but not closer than 15 s. */
const TOLERANCE = 0.02;
const START_TOLERANCE_MS = 15_000;

/** Tells waiting jobs what the plan says of them, without writing the whole queue on every pass. */
export class WaitingNotes {
  private told = new Map<string, WaitingJob>();
  private positionsToldAtMs = -Infinity;
  private allToldAtMs = -Infinity;

  constructor(
    private readonly store: Pick<FleetStore, 'noteWaiting'>,
    private readonly clock: Pick<Clock, 'monotonic'>,
  ) {}

  /** It is time to look at the whole queue, and to tell positions, too. */
  isDue(): boolean {
    return this.clock.monotonic() - this.positionsToldAtMs >= POSITIONS_EVERY_MS;
  }

  /** @param waiting of the whole queue when it is due, otherwise perhaps of its head    @param nowMs of the database clock */
  async write(waiting: ReadonlyMap<string, WaitingJob>, nowMs: number): Promise<void> {
    const atMs = this.clock.monotonic();
    const isDue = this.isDue();
    const isAll = isDue && atMs - this.allToldAtMs >= ALL_EVERY_MS;
    const news = new Map([...waiting].filter(([id, job]) => isAll || isNews(this.told.get(id), job, { nowMs, isDue })));
    if (news.size > 0) await this.store.noteWaiting(news);
    if (isDue) for (const id of this.told.keys()) if (!waiting.has(id)) this.told.delete(id);
    for (const [id, job] of news) this.told.set(id, job);
    if (isDue) this.positionsToldAtMs = atMs;
    if (isAll) this.allToldAtMs = atMs;
  }

  /** The job no longer waits: what it was told is void. */
  forget(jobId: string): void {
    this.told.delete(jobId);
  }
}

function isNews(told: WaitingJob | undefined, job: WaitingJob, { nowMs, isDue }: { readonly nowMs: number; readonly isDue: boolean }): boolean {
  if (told === undefined || told.code !== job.code || told.text !== job.text) return true;
  return isDue && (Math.abs(told.position - job.position) > TOLERANCE * job.position || hasMoved(told.estimatedStartMs, job.estimatedStartMs, nowMs));
}

function hasMoved(before: number | null, after: number | null, nowMs: number): boolean {
  if (before === null || after === null) return before !== after;
  return Math.abs(before - after) > Math.max(START_TOLERANCE_MS, TOLERANCE * (after - nowMs));
}

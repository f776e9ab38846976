import type { JobStreamMessage } from '@tunefleet/contracts';
import { canonicalJson } from '@tunefleet/foundation';
import { isTerminal } from '@tunefleet/domain-jobs';
import type { JobEventRecord, RecordStore } from '@tunefleet/ports';
import { jobEventView, jobSummary } from './views';

export type FeedStore = Pick<RecordStore, 'getJob' | 'listEvents' | 'listMetrics'>;

/** Where a reader is: the last event it has, and the last step of which it has metrics (-1: none). */
export interface FeedPosition {
  readonly eventId: string | null;
  readonly step: number;
}

const EVENTS_PAGE = 100;
/** A reader that comes late gets the newest so many events. */
const EVENTS_BACKLOG_MAX = 1_000;
const METRICS_PAGE = 1_000;

/** What is new about one job since it was last asked. */
export class JobFeed {
  private lastJob = '';
  /** Values of the last step already sent: later ones of the same step are still news. */
  private lastStepValues: Readonly<Record<string, number>> = {};

  constructor(
    private readonly store: FeedStore,
    private readonly teamId: string,
    private readonly jobId: string,
    private position: FeedPosition,
  ) {}

  get at(): FeedPosition {
    return this.position;
  }

  /** New messages in order; with `end` last when the job has ended and all has been said. Null: the job is no longer there. */
  async next(): Promise<readonly JobStreamMessage[] | null> {
    // The state first: what is read after a final state is complete.
    const job = await this.store.getJob(this.teamId, this.jobId);
    if (job === null) return null;
    const messages: JobStreamMessage[] = [];
    for (const event of await this.newEvents()) messages.push({ type: 'event', data: jobEventView(event) });
    for (const [step, values] of await this.newMetrics()) messages.push({ type: 'metrics', data: { step, values } });
    const summary = jobSummary(job);
    const text = canonicalJson(summary);
    if (text !== this.lastJob) messages.push({ type: 'job', data: summary });
    this.lastJob = text;
    if (isTerminal(job.status)) messages.push({ type: 'end', data: { status: job.status } });
    return messages;
  }

  /** Oldest first. Pages are read newest first until a known event turns up. */
  private async newEvents(): Promise<JobEventRecord[]> {
    const { eventId } = this.position;
    const found: JobEventRecord[] = [];
    for (let after: string | undefined; found.length < EVENTS_BACKLOG_MAX; ) {
      const page = await this.store.listEvents(this.jobId, { limit: EVENTS_PAGE, ...(after === undefined ? {} : { after }) });
      // Ids are of one width and grow.
      const fresh = page.items.filter((event) => eventId === null || event.id > eventId);
      found.push(...fresh);
      after = page.items.at(-1)?.id;
      if (!page.hasMore || fresh.length < page.items.length || after === undefined) break;
    }
    const newest = found[0];
    if (newest !== undefined) this.position = { ...this.position, eventId: newest.id };
    return found.reverse();
  }

  /** By step. The last step sent is read again: an attempt may add to it (a validation loss, say). */
  private async newMetrics(): Promise<[number, Record<string, number>][]> {
    const steps = new Map<number, Record<string, number>>();
    for (let since = this.position.step - 1; ; ) {
      const points = await this.store.listMetrics(this.jobId, { limit: METRICS_PAGE, ...(since < 0 ? {} : { sinceStep: since }) });
      for (const { step, name, value } of points) steps.set(step, { ...steps.get(step), [name]: value });
      const last = points.at(-1)?.step;
      if (points.length < METRICS_PAGE || last === undefined || last - 1 <= since) break;
      // The page may end within a step.
      since = last - 1;
    }
    const known = steps.get(this.position.step);
    if (known !== undefined && canonicalJson(known) === canonicalJson(this.lastStepValues)) steps.delete(this.position.step);
    const sorted = [...steps].sort(([a], [b]) => a - b);
    const last = sorted.at(-1);
    if (last !== undefined) {
      this.position = { ...this.position, step: last[0] };
      this.lastStepValues = last[1];
    }
    return sorted;
  }
}

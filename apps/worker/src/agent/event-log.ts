import type { fleet } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';

export type EventPayload = NonNullable<fleet.Event['payload']>;

export interface EventLogLimits {
  /** Events held in memory; only metrics and checkpoints may fill the last tenth. */
  readonly maxEvents: number;
  readonly batchEvents: number;
  /** Rough size of a batch; far below the largest message the server takes. */
  readonly batchBytes: number;
}

export const defaultEventLogLimits: EventLogLimits = { maxEvents: 50_000, batchEvents: 500, batchBytes: 512 * 1024 };

interface PendingEvent {
  readonly timeMs: number;
  readonly payload: EventPayload;
}

/**
 * The events of one attempt, in order, until the control plane has stored them. Numbers are given when an event is first sent, so that
 * a progress report that a newer one replaces before that leaves no gap. One batch is under way at a time; after a reconnect it is sent again.
 *
 * It lives in memory on purpose. Should the agent die, its attempt is lost with it, and the next one repeats every step after
 * the last registered checkpoint; a checkpoint is registered only after all events before it are stored. So no point is lost.
 */
export class EventLog {
  private readonly pending: PendingEvent[] = [];
  private inFlight: fleet.Event[] = [];
  private awaitingAck = false;
  private nextSeq = 1;
  private dropped = 0;

  constructor(private readonly limits: EventLogLimits = defaultEventLogLimits) {}

  /** @throws capacity when full of what must not be dropped: the attempt cannot go on without losing its record */
  add(payload: EventPayload, timeMs: number): void {
    if (payload.$case === 'progress') this.removeOlderProgress();
    const droppable = payload.$case === 'log' || payload.$case === 'progress';
    const limit = droppable ? this.limits.maxEvents * 0.9 : this.limits.maxEvents;
    if (this.size >= limit) {
      if (!droppable) throw new TunefleetError('capacity', `${this.size} events wait for the control plane, which is the limit`);
      this.dropped++;
      return;
    }
    if (droppable && this.dropped > 0) {
      this.pending.push({ timeMs, payload: { $case: 'log', value: { level: 'warn', message: `${this.dropped} log lines were dropped: the control plane could not be reached`, dataJson: '' } } });
      this.dropped = 0;
    }
    this.pending.push({ timeMs, payload });
  }

  /** The next batch to send, or null when there is none or one is under way. */
  nextBatch(): readonly fleet.Event[] | null {
    if (this.awaitingAck) return null;
    if (this.inFlight.length === 0) {
      this.inFlight = this.takeBatch().map((event) => ({ seq: this.nextSeq++, ...event }));
    }
    if (this.inFlight.length === 0) return null;
    this.awaitingAck = true;
    return this.inFlight;
  }

  /** Everything up to `seq` is stored. */
  acknowledge(seq: number): void {
    this.inFlight = this.inFlight.filter((event) => event.seq > seq);
    this.awaitingAck = false;
  }

  /** The stream is new: what was under way is sent again. */
  rewind(): void {
    this.awaitingAck = false;
  }

  get isDrained(): boolean {
    return this.size === 0;
  }

  /** Highest number given so far. */
  get lastSeq(): number {
    return this.nextSeq - 1;
  }

  private takeBatch(): PendingEvent[] {
    let count = 0;
    let bytes = 0;
    for (const event of this.pending) {
      bytes += roughBytes(event.payload);
      if (count > 0 && (count >= this.limits.batchEvents || bytes > this.limits.batchBytes)) break;
      count++;
    }
    return this.pending.splice(0, count);
  }

  private get size(): number {
    return this.pending.length + this.inFlight.length;
  }

  private removeOlderProgress(): void {
    const index = this.pending.findLastIndex((event) => event.payload.$case === 'progress');
    if (index >= 0) this.pending.splice(index, 1);
  }
}

function roughBytes(payload: EventPayload): number {
  if (payload.$case === 'log') return 64 + 3 * payload.value.message.length + 3 * payload.value.dataJson.length;
  if (payload.$case === 'metrics') return 64 + 64 * Object.keys(payload.value.values).length;
  return 4096;
}

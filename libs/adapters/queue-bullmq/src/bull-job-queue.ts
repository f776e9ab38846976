import type { Job } from 'bullmq';
import { jobKinds, type QueueName } from '@tunefleet/contracts';
import { TunefleetError, sleep, type JsonObject, type Logger } from '@tunefleet/foundation';
import type { JobQueue, QueueMessage } from '@tunefleet/ports';
import type { Backend, BullQueue, BullWorker } from './backend';
import { reasonOf, type ConnectionLog } from './connection-log';

/** Delays between tries of a message: `firstDelayMs`, doubled each time, up to half of it taken off at random. */
export interface RetryPolicy {
  readonly tries: number;
  readonly firstDelayMs: number;
}

/** Two minutes in all. What is still owed then is announced again by the reconciler, under another id. */
const DEFAULT_RETRY: RetryPolicy = { tries: 8, firstDelayMs: 1_000 };

/** A consumer that died holds its messages for this long. */
const LOCK_MS = 30_000;
const STALLED_CHECK_MS = 15_000;
/** A message whose consumer died so often is given up: it may be what kills them. */
const STALLED_MAX = 5;
/** After an error while fetching. */
const FETCH_AGAIN_MS = 1_000;

const FAILED_KEPT_MS = 7 * 86_400_000;
const FAILED_REMOVED_PER_SWEEP = 1_000;
const SWEEP_EVERY_MS = 3_600_000;

/** For running handlers. */
const CLOSE_TIMEOUT_MS = 30_000;
/** For BullMQ's own farewell. */
const RELEASE_TIMEOUT_MS = 2_000;
/** Plain integers BullMQ gives itself; a colon divides its keys. */
const MESSAGE_ID = /^(?!\d+$)[A-Za-z0-9_-]{1,200}$/;

/**
 * Messages are removed once handled. Failed ones stay a week and are then removed by a sweep: BullMQ's own retention by count or age
 * deadlocks with itself on PostgreSQL and then reports messages as failed that were handled.
 */
export class BullJobQueue implements JobQueue {
  readonly backend: 'redis' | 'postgres';
  private readonly queues: ReadonlyMap<QueueName, BullQueue>;
  private readonly workers = new Map<QueueName, BullWorker>();
  private readonly sweeps: NodeJS.Timeout[] = [];
  private closing: Promise<void> | null = null;
  /** Handlers. */
  private running = 0;

  private constructor(
    private readonly store: Backend,
    private readonly log: ConnectionLog,
    private readonly logger: Logger,
    private readonly retry: RetryPolicy,
  ) {
    this.backend = store.kind;
    const names = new Set(Object.values(jobKinds).map((kind) => kind.queue));
    this.queues = new Map([...names].map((name) => [name, store.newQueue(name, {})]));
    for (const queue of this.queues.values()) queue.on('error', (error) => log.failed(error));
  }

  /** Queues are made and awaited here: one that is ready answers at once when its store is away, one that is not would wait for it. */
  static async open(store: Backend, log: ConnectionLog, logger: Logger, retry: Partial<RetryPolicy> = {}): Promise<BullJobQueue> {
    const queue = new BullJobQueue(store, log, logger, { ...DEFAULT_RETRY, ...retry });
    try {
      await Promise.all([...queue.queues.values()].map((each) => each.waitUntilReady()));
      return queue;
    } catch (error) {
      await queue.close();
      throw error;
    }
  }

  async add({ id, queue, payload }: QueueMessage): Promise<void> {
    if (!MESSAGE_ID.test(id)) {
      throw new TunefleetError('invalid_input', `not a message id: ${JSON.stringify(id.slice(0, 220))}; expected 1 to 200 letters, digits, '-' and '_', not digits alone`, { param: 'id' });
    }
    await this.answered(() =>
      this.queue(queue).add(queue, payload, {
        jobId: id,
        attempts: this.retry.tries,
        backoff: { type: 'exponential', delay: this.retry.firstDelayMs, jitter: 0.5 },
        removeOnComplete: true,
        removeOnFail: false,
      }),
    );
  }

  async consume(queue: QueueName, handler: (message: QueueMessage) => Promise<void>, { concurrency }: { concurrency: number }): Promise<void> {
    this.requireOpen();
    if (this.workers.has(queue)) throw new TunefleetError('invariant', `the queue ${queue} has a consumer in this process already`);
    const process = async (job: Job): Promise<void> => {
      this.log.recovered();
      this.running++;
      try {
        await handler({ id: String(job.id), queue, payload: job.data as JsonObject });
      } finally {
        this.running--;
      }
    };
    const worker = this.store.newWorker(queue, process, {
      concurrency,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_CHECK_MS,
      maxStalledCount: STALLED_MAX,
      runRetryDelay: FETCH_AGAIN_MS,
    });
    this.workers.set(queue, worker);
    worker.on('error', (error) => this.log.failed(error));
    worker.on('failed', (job, error) => this.logFailure(queue, job, error));
    await this.answered(() => worker.waitUntilReady());
    this.sweeps.push(setInterval(() => void this.sweep(queue), SWEEP_EVERY_MS).unref());
    await this.sweep(queue);
  }

  async counts(queue: QueueName): Promise<{ waiting: number; active: number; failed: number }> {
    const counts = await this.answered(() => this.queue(queue).getJobCounts('waiting', 'prioritized', 'delayed', 'active', 'failed'));
    const count = (state: string): number => counts[state] ?? 0;
    return { waiting: count('waiting') + count('prioritized') + count('delayed'), active: count('active'), failed: count('failed') };
  }

  ping(): Promise<void> {
    return this.answered(() => this.store.ping());
  }

  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  private queue(name: QueueName): BullQueue {
    const queue = this.queues.get(name);
    if (queue === undefined) throw new TunefleetError('invariant', `there is no queue ${name}`);
    return queue;
  }

  private requireOpen(): void {
    if (this.closing !== null) throw new TunefleetError('unavailable', 'the queue has been closed', { retry: 'never' });
  }

  /** @throws unavailable for whatever the store of the messages does not answer */
  private async answered<T>(work: () => Promise<T>): Promise<T> {
    this.requireOpen();
    try {
      const answer = await work();
      this.log.recovered();
      return answer;
    } catch (cause) {
      this.log.failed(cause);
      throw new TunefleetError('unavailable', `the queue does not answer: ${reasonOf(cause)}`, { cause });
    }
  }

  private logFailure(queue: QueueName, job: Job | undefined, error: Error): void {
    const fields = { queue, messageId: job?.id, tries: job?.attemptsMade, reason: reasonOf(error) };
    if (job !== undefined && job.attemptsMade >= this.retry.tries) this.logger.error({ ...fields, err: error }, 'a message could not be handled and is given up');
    else this.logger.warn(fields, 'a message could not be handled, it is tried again later');
  }

  private async sweep(queue: QueueName): Promise<void> {
    try {
      await this.queue(queue).clean(FAILED_KEPT_MS, FAILED_REMOVED_PER_SWEEP, 'failed');
    } catch (error) {
      this.log.failed(error);
    }
  }

  /** Waits for handlers; not for a store that is away, on which BullMQ waits without end. */
  private async closeAll(): Promise<void> {
    for (const sweep of this.sweeps) clearInterval(sweep);
    const workers = [...this.workers.values()];
    const queues = [...this.queues.values()];
    const closed = Promise.allSettled(workers.map((worker) => worker.close())).then(() => Promise.allSettled(queues.map((queue) => queue.close())));
    const lastMs = performance.now() + CLOSE_TIMEOUT_MS;
    let inTime = await settlesWithin(closed, RELEASE_TIMEOUT_MS);
    while (!inTime && this.running > 0 && performance.now() < lastMs) inTime = await settlesWithin(closed, RELEASE_TIMEOUT_MS);
    if (!inTime) {
      this.logger.warn({ handlersRunning: this.running }, 'the queue did not close in time; messages being handled will be delivered again');
      await settlesWithin(Promise.allSettled([...workers, ...queues].map((part) => part.disconnect())), RELEASE_TIMEOUT_MS);
    }
    await settlesWithin(this.store.close(), RELEASE_TIMEOUT_MS);
  }
}

async function settlesWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  const timeout = new AbortController();
  const settled = await Promise.race([work.then(() => true), sleep(ms, timeout.signal).then(() => false)]);
  timeout.abort();
  return settled;
}

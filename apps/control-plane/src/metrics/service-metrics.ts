import { jobKinds, type QueueName } from '@tunefleet/contracts';
import { jobTransitions, type JobStatus } from '@tunefleet/domain-jobs';
import { errorMessage, type Logger } from '@tunefleet/foundation';
import type { JobQueue, Outbox, RecordStore } from '@tunefleet/ports';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ControlLoops } from '../loops';
import type { LoopRun } from '../loops/loop';
import { VERSION } from '../version';

export interface ServiceMetricsDeps {
  readonly records: Pick<RecordStore, 'countJobs' | 'listWorkers' | 'countLiveAttempts'>;
  readonly outbox: Pick<Outbox, 'lagMs'>;
  readonly queue: Pick<JobQueue, 'counts'>;
  readonly logger: Logger;
}

/** A record that says nothing for so long is not waited for; Prometheus gives a scrape 10 s. */
const RECORD_MS = 5_000;
/** Seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const WORKER_STATES = ['online', 'suspect', 'offline'] as const;
const MESSAGE_STATES = ['waiting', 'active', 'failed'] as const;
const jobStatuses = Object.keys(jobTransitions) as JobStatus[];
const queueNames = [...new Set(Object.values(jobKinds).map(({ queue }): QueueName => queue))];

/**
 * What Prometheus reads of this replica. What stands in the record is read at each scrape and is the same on every replica; loops and repairs
 * are this replica's own, to be summed. While the record does not answer, its part is left out and `tunefleet_record_up` is 0.
 */
export class ServiceMetrics {
  private readonly registry = new Registry();
  private answer: Promise<string> | null = null;
  private readonly recordUp = this.gauge('tunefleet_record_up', 'Whether the record answered this scrape');
  private readonly jobs = this.gauge('tunefleet_jobs', 'Jobs by status', 'status');
  private readonly workers = this.gauge('tunefleet_workers', 'Workers by how they are heard from', 'status');
  private readonly workersBusy = this.gauge('tunefleet_workers_busy', 'Workers that hold an attempt');
  private readonly workersCordoned = this.gauge('tunefleet_workers_cordoned', 'Workers that get no new jobs');
  private readonly outboxLag = this.gauge('tunefleet_outbox_lag_seconds', 'Age of the oldest message not yet handed to the queue');
  private readonly messages = this.gauge('tunefleet_queue_messages', 'Messages in the queue', 'queue', 'state');
  private readonly repairs = this.counter('tunefleet_repairs_total', 'What the reconciler had to mend; a steady rate points at a bug', 'kind');
  private readonly loopErrors = this.counter('tunefleet_loop_errors_total', 'Runs of a control loop that failed', 'loop');
  private readonly loopSeconds = new Histogram({ name: 'tunefleet_loop_seconds', help: 'Time of one run of a control loop; `scheduler` is the scheduling pass', labelNames: ['loop'], buckets: BUCKETS, registers: [this.registry] });

  constructor(private readonly deps: ServiceMetricsDeps) {
    this.gauge('tunefleet_build_info', 'Always 1', 'version').set({ version: VERSION }, 1);
    collectDefaultMetrics({ register: this.registry });
  }

  readonly contentType = this.registry.contentType;

  readonly loopRan = ({ loop, ms, failed }: LoopRun): void => {
    this.loopSeconds.observe({ loop }, ms / 1000);
    this.loopErrors.inc({ loop }, failed ? 1 : 0);
  };

  /** Prometheus' text format, version 0.0.4. Scrapes at the same time get the same answer. */
  text(loops: Pick<ControlLoops, 'status'>): Promise<string> {
    this.answer ??= this.render(loops).finally(() => (this.answer = null));
    return this.answer;
  }

  private async render(loops: Pick<ControlLoops, 'status'>): Promise<string> {
    this.repairs.reset();
    for (const [kind, count] of Object.entries(loops.status().repairs)) this.repairs.inc({ kind }, count);
    for (const gauge of [this.jobs, this.workers, this.workersBusy, this.workersCordoned, this.outboxLag, this.messages]) gauge.reset();
    try {
      await within(RECORD_MS, this.readRecord());
      this.recordUp.set(1);
    } catch (error) {
      this.deps.logger.warn({ reason: errorMessage(error) }, 'the record could not be read for metrics');
      this.recordUp.set(0);
    }
    return this.registry.metrics();
  }

  private async readRecord(): Promise<void> {
    const { records, outbox, queue } = this.deps;
    const counted = queueNames.map(async (name) => ({ name, counts: await queue.counts(name) }));
    const [jobs, workers, busy, lagMs, queues] = await Promise.all([records.countJobs(), records.listWorkers(), records.countLiveAttempts(), outbox.lagMs(), Promise.all(counted)]);
    // A state that nothing is in is told too: a series that comes and goes cannot be alerted on.
    for (const status of jobStatuses) this.jobs.set({ status }, jobs[status] ?? 0);
    for (const status of WORKER_STATES) this.workers.set({ status }, workers.filter((worker) => worker.status === status).length);
    this.workersBusy.set(busy.size);
    this.workersCordoned.set(workers.filter(({ cordoned }) => cordoned).length);
    this.outboxLag.set(lagMs / 1000);
    for (const { name, counts } of queues) for (const state of MESSAGE_STATES) this.messages.set({ queue: name, state }, counts[state]);
  }

  private gauge<L extends string>(name: string, help: string, ...labelNames: L[]): Gauge<L> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }

  private counter<L extends string>(name: string, help: string, ...labelNames: L[]): Counter<L> {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }
}

async function within(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined);
  }
}

import { jobKinds, type QueueName } from '@tunefleet/contracts';
import { TunefleetError, systemClock, type Clock, type Logger } from '@tunefleet/foundation';
import type { ModelResolver } from '@tunefleet/ml-models/specs';
import type { BlobStore, JobQueue, JobRecord, QueueMessage, RecordStore } from '@tunefleet/ports';
import { takeIn, takeInJob } from './take-in';

export interface StartIntakeOptions {
  readonly records: RecordStore;
  readonly queue: Pick<JobQueue, 'consume'>;
  readonly blobs: Pick<BlobStore, 'open' | 'stat'>;
  readonly resolver: Pick<ModelResolver, 'describe'>;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Jobs checked at once per queue. Default 4. */
  readonly concurrency?: number;
}

export interface Intake {
  /**
   * Checks a job that was just put on record at once, without the way through the queue. What wakes intake by the queue stays owed until that has come
   * to an end, so nothing depends on this process. False: it has its hands full, the job comes by the queue.
   */
  offer(job: JobRecord): boolean;
  /** Ends what waits for the network. Resolves when the jobs that were offered have ended or been left to the queue. */
  stop(): Promise<void>;
}

const CONCURRENCY_DEFAULT = 4;
/** Offered jobs under way; the rest is for all replicas. */
const OFFERED_MAX = 8;

/** Consumes the queues of all job kinds. After `stop`, `queue.close()` lets the handlers end; what was not finished is delivered again. */
export async function startIntake({ queue, logger, clock = systemClock, concurrency = CONCURRENCY_DEFAULT, ...parts }: StartIntakeOptions): Promise<Intake> {
  const stopping = new AbortController();
  const deps = { ...parts, clock, logger: logger.child({ part: 'intake' }), signal: stopping.signal };
  const offered = new Map<string, Promise<void>>();

  const take = async (job: JobRecord): Promise<void> => {
    try {
      await takeInJob(job, deps);
    } catch (error) {
      deps.logger.warn({ jobId: job.id, err: error }, 'a job could not be checked, it is tried again by the queue');
    } finally {
      offered.delete(job.id);
    }
  };
  const handle = async (message: QueueMessage): Promise<void> => {
    const jobId = jobIdOf(message);
    // Nothing is checked twice at once. Whatever has come of it, the record says what there is still to do.
    await offered.get(jobId);
    await takeIn(jobId, deps);
  };
  const queues = new Set<QueueName>(Object.values(jobKinds).map((kind) => kind.queue));
  for (const name of queues) await queue.consume(name, handle, { concurrency });
  return {
    offer: (job) => {
      if (stopping.signal.aborted || offered.size >= OFFERED_MAX) return false;
      offered.set(job.id, take(job));
      return true;
    },
    stop: async () => {
      stopping.abort();
      await Promise.all(offered.values());
    },
  };
}

function jobIdOf({ id, payload }: QueueMessage): string {
  const jobId = payload['jobId'];
  if (typeof jobId !== 'string') throw new TunefleetError('invariant', `the message ${id} names no job`);
  return jobId;
}

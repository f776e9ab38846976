import { jobKinds, type QueueName } from '@tunefleet/contracts';
import { TunefleetError, systemClock, type Clock, type Logger } from '@tunefleet/foundation';
import type { ModelResolver } from '@tunefleet/ml-models/specs';
import type { BlobStore, JobQueue, QueueMessage, RecordStore } from '@tunefleet/ports';
import { takeIn } from './take-in';

export interface StartIntakeOptions {
  readonly records: RecordStore;
  readonly queue: Pick<JobQueue, 'consume'>;
  readonly blobs: Pick<BlobStore, 'open'>;
  readonly resolver: Pick<ModelResolver, 'describe'>;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Jobs checked at once per queue. Default 4. */
  readonly concurrency?: number;
}

const CONCURRENCY_DEFAULT = 4;

/**
 * Consumes the queues of all job kinds. `stop` ends what waits for the network; then `queue.close()` lets the handlers end. What was not
 * finished is delivered again.
 */
export async function startIntake({ queue, logger, clock = systemClock, concurrency = CONCURRENCY_DEFAULT, ...parts }: StartIntakeOptions): Promise<{ stop(): void }> {
  const stopping = new AbortController();
  const deps = { ...parts, clock, logger: logger.child({ part: 'intake' }), signal: stopping.signal };
  const handle = async (message: QueueMessage): Promise<void> => {
    await takeIn(jobIdOf(message), deps);
  };
  const queues = new Set<QueueName>(Object.values(jobKinds).map((kind) => kind.queue));
  for (const name of queues) await queue.consume(name, handle, { concurrency });
  return { stop: () => stopping.abort() };
}

function jobIdOf({ id, payload }: QueueMessage): string {
  const jobId = payload['jobId'];
  if (typeof jobId !== 'string') throw new TunefleetError('invariant', `the message ${id} names no job`);
  return jobId;
}

import type { QueueName } from '@tunefleet/contracts';
import type { JsonObject } from '@tunefleet/foundation';

export interface QueueMessage {
  /** Letters, digits and `-_`: adding the same id again is ignored while the first is remembered. */
  readonly id: string;
  readonly queue: QueueName;
  readonly payload: JsonObject;
}

/** Wake-ups with retries. Delivery is at least once and may be lost with the queue; the reconciler makes up for it. */
export interface JobQueue {
  readonly backend: 'redis' | 'postgres';
  add(message: QueueMessage): Promise<void>;
  /** Starts consuming; a thrown error is retried with backoff. One consumer per queue and process. */
  consume(queue: QueueName, handler: (message: QueueMessage) => Promise<void>, options: { concurrency: number }): Promise<void>;
  counts(queue: QueueName): Promise<{ waiting: number; active: number; failed: number }>;
  ping(): Promise<void>;
  /** Lets running handlers end, then disconnects. */
  close(): Promise<void>;
}

import { TunefleetError, type Logger } from '@tunefleet/foundation';
import type { JobQueue } from '@tunefleet/ports';
import { BullJobQueue, type RetryPolicy } from './bull-job-queue';
import { ConnectionLog, reasonOf } from './connection-log';
import { openPostgresBackend } from './postgres-backend';
import { openRedisBackend } from './redis-backend';

export interface QueueOptions {
  /** Given: messages live in Redis. Otherwise in PostgreSQL. */
  readonly redisUrl?: string | undefined;
  readonly postgresUrl: string;
  /** Of all keys in Redis, for installations that share one; in PostgreSQL the database keeps them apart. Default `tunefleet`. */
  readonly prefix?: string;
  readonly logger: Logger;
  readonly retry?: Partial<RetryPolicy>;
}

/** @throws unavailable when the store of the messages cannot be reached */
export async function openQueue(options: QueueOptions): Promise<JobQueue> {
  const { redisUrl, postgresUrl, prefix = 'tunefleet' } = options;
  const logger = options.logger.child({ part: 'queue', backend: redisUrl === undefined ? 'postgres' : 'redis' });
  const log = new ConnectionLog(logger);
  try {
    const backend = redisUrl === undefined ? await openPostgresBackend(postgresUrl, log) : await openRedisBackend(redisUrl, prefix, log);
    return await BullJobQueue.open(backend, log, logger, options.retry);
  } catch (cause) {
    const [store, variable] = redisUrl === undefined ? ['PostgreSQL', 'DATABASE_URL'] : ['Redis', 'REDIS_URL'];
    throw new TunefleetError('unavailable', `the queue cannot use ${store}: ${reasonOf(cause)}. Check ${variable} and that the server is running`, { cause });
  }
}

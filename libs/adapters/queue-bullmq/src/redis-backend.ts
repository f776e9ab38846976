import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { backoffDelayMs } from '@tunefleet/foundation';
import type { Backend } from './backend';
import type { ConnectionLog } from './connection-log';

const RECONNECT = { firstMs: 200, factor: 2, maxMs: 10_000 };
const COMMAND_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** ioredis holds the process for so long after a connection that never came about. */
const DISCONNECT_TIMEOUT_MS = 200;
/** The event stream of a queue, which nobody here reads. */
const EVENTS_KEPT = 100;

/**
 * Two connections, because producers and consumers want opposite things of a Redis that is away: a producer is told at once (its
 * message stays in the outbox), a consumer waits. BullMQ adds a blocking one per consumer.
 * @throws what Redis answered when it cannot be reached
 */
export async function openRedisBackend(url: string, prefix: string, log: ConnectionLog): Promise<Backend> {
  let opened = false;
  const retryStrategy = (tries: number): number | null => (opened ? 50 + backoffDelayMs(RECONNECT, tries) : null);
  const base = { lazyConnect: true, connectTimeout: CONNECT_TIMEOUT_MS, disconnectTimeout: DISCONNECT_TIMEOUT_MS, retryStrategy };
  const producer = new Redis(url, { ...base, enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: COMMAND_TIMEOUT_MS });
  const consumer = new Redis(url, { ...base, maxRetriesPerRequest: null });
  const connections = [producer, consumer];
  // BullMQ makes its blocking connections of this one, and does not always end them.
  const duplicate = consumer.duplicate.bind(consumer);
  consumer.duplicate = (...override) => {
    const blocking = duplicate(...override);
    endsWhenTold(blocking);
    connections.push(blocking);
    return blocking;
  };
  connections.forEach(endsWhenTold);
  const close = async (): Promise<void> => {
    for (const connection of connections) connection.disconnect();
  };
  let lastError: unknown;
  for (const connection of connections) {
    connection.on('error', (error) => (opened ? log.failed(error) : (lastError = error)));
    connection.on('ready', () => log.recovered());
  }
  try {
    await Promise.all(connections.map((connection) => connection.connect()));
    await producer.ping();
  } catch (error) {
    await close();
    // "Connection is closed" says less than what came before it.
    throw lastError ?? error;
  }
  opened = true;
  return {
    kind: 'redis',
    newQueue: (name, options) => new Queue(name, { ...options, connection: producer, prefix, streams: { events: { maxLen: EVENTS_KEPT } } }),
    newWorker: (name, process, options) => new Worker(name, process, { ...options, connection: consumer, prefix }),
    ping: async () => {
      await producer.ping();
    },
    close,
  };
}

/**
 * ioredis that is told to disconnect while it waits to connect again forgets about both: it never ends, and commands that wait for it
 * wait for ever. A connection attempt that is broken off at once ends properly.
 */
function endsWhenTold(connection: Redis): void {
  const disconnect = connection.disconnect.bind(connection);
  connection.disconnect = (reconnect = false) => {
    if (!reconnect && connection.status === 'reconnecting') connection.connect().catch(() => undefined);
    disconnect(reconnect);
  };
}

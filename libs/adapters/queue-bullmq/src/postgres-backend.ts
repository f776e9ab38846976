import { DEFAULT_SCHEMA, createPostgresBackend, runMigrations, withBackend, type PgPool } from 'bullmq';
import pg from 'pg';
import type { Backend } from './backend';
import type { ConnectionLog } from './connection-log';

/** Each consumer keeps one connection to listen on; the others serve queries. */
const POOL_SIZE = 8;
const CONNECT_TIMEOUT_MS = 10_000;
const QUERY_TIMEOUT_MS = 30_000;
const KEEP_ALIVE_FIRST_MS = 10_000;

/**
 * BullMQ's tables in the schema `bullmq` of the database, brought up to date here. A pool of ours, because BullMQ finds its own
 * driver only from CommonJS.
 * @throws what PostgreSQL answered when it cannot be reached or migrated
 */
export async function openPostgresBackend(url: string, log: ConnectionLog): Promise<Backend> {
  const connection = { connectionString: url, connectionTimeoutMillis: CONNECT_TIMEOUT_MS, application_name: 'tunefleet-queue' };
  await migrate(connection);
  const pool = new pg.Pool({
    ...connection,
    max: POOL_SIZE,
    query_timeout: QUERY_TIMEOUT_MS,
    // BullMQ names its tables and functions without their schema.
    options: `-c search_path=${DEFAULT_SCHEMA}`,
    // A listening connection is silent for long: without this a cut one would not be noticed.
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_FIRST_MS,
  });
  pool.on('error', (error) => log.failed(error));
  // Nobody else listens in the moment in which a connection is handed out; an error event then would end the process.
  pool.on('connect', (client) => client.on('error', (error) => log.failed(error)));
  const { Queue, Worker } = withBackend(createPostgresBackend);
  // BullMQ describes a pool by its shape, in which the overloads of the real one do not fit.
  const shared = { connection: pool as unknown as PgPool };
  return {
    kind: 'postgres',
    newQueue: (name, options) => new Queue(name, { ...options, ...shared }),
    newWorker: (name, process, options) => new Worker(name, process, { ...options, ...shared }),
    ping: async () => {
      await pool.query('select 1');
    },
    close: () => pool.end(),
  };
}

async function migrate(connection: pg.ClientConfig): Promise<void> {
  const client = new pg.Client(connection);
  client.on('error', () => undefined);
  try {
    await client.connect();
    await runMigrations(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

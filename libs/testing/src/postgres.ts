import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { silentLogger } from '@tunefleet/foundation';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@tunefleet/postgres-embedded';

const START_TIMEOUT_MS = 120_000;

/**
 * A fresh, empty database for the spec file that calls this at its top level, on a server of its own that ends with it.
 * The server keeps nothing on disk for sure (`fsync` off): only tests may do that.
 * @returns a function, because the URL is known once the tests run
 */
export function useDatabase(): () => string {
  let folder: string | undefined;
  let server: EmbeddedPostgres | undefined;
  let url: string | undefined;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tunefleet-test-pg-'));
    server = await startEmbeddedPostgres({ dataDir: join(folder, 'postgres'), logger: silentLogger, settings: { fsync: 'off', synchronous_commit: 'off' } });
    url = await createDatabase(server.url);
  }, START_TIMEOUT_MS);
  afterAll(async () => {
    await server?.stop();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }, START_TIMEOUT_MS);
  return () => {
    if (url === undefined) throw new Error('the database is there only while tests run');
    return url;
  };
}

/**
 * Another database on the server of `url`: empty, or a copy of `template`, another database on it to which nobody is connected.
 * Copying one that was migrated is much quicker than migrating again.
 */
export async function createDatabase(url: string, template?: string): Promise<string> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const copied = template === undefined ? '' : ` template ${client.escapeIdentifier(new URL(template).pathname.slice(1))}`;
    await client.query(`create database ${name}${copied}`);
  } finally {
    await client.end();
  }
  const created = new URL(url);
  created.pathname = `/${name}`;
  return created.toString();
}

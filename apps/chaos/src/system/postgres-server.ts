import { silentLogger } from '@tunefleet/foundation';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { isAlive, until } from '@tunefleet/testing';
import pg from 'pg';

/** SIGINT: fast shutdown. SIGQUIT: immediate, without a checkpoint. SIGKILL: as by the out-of-memory killer; its children notice by themselves. */
export type PostgresEnd = 'SIGINT' | 'SIGQUIT' | 'SIGKILL';

/** The embedded PostgreSQL with its durable settings, ended and started again on the same files and port. */
export class PostgresServer {
  private constructor(
    private readonly dataDir: string,
    private server: EmbeddedPostgres,
  ) {}

  static async start(dataDir: string): Promise<PostgresServer> {
    return new PostgresServer(dataDir, await startEmbeddedPostgres({ dataDir, logger: silentLogger }));
  }

  get url(): string {
    return this.server.url;
  }

  async end(how: PostgresEnd): Promise<void> {
    const [row] = await this.query<{ pid: number }>(`select split_part(pg_read_file('postmaster.pid'), e'\\n', 1)::int as pid`);
    const pid = row?.pid ?? 0;
    process.kill(pid, how);
    await until(`PostgreSQL ${pid} to be gone`, () => !isAlive(pid), { timeoutMs: 30_000 });
  }

  async begin(): Promise<void> {
    this.server = await startEmbeddedPostgres({ dataDir: this.dataDir, logger: silentLogger, port: Number(new URL(this.url).port) });
  }

  /** On a connection of its own, so that one that broke with the server does not matter. */
  async query<Row>(sql: string, values: readonly unknown[] = []): Promise<Row[]> {
    const client = new pg.Client({ connectionString: this.url, connectionTimeoutMillis: 5_000 });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query(sql, [...values])).rows as Row[];
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  stop(): Promise<void> {
    return this.server.stop();
  }
}

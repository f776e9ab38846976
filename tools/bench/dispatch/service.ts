import { fork, type ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { newId, silentLogger } from '@tunefleet/foundation';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { RedisServer, writeTinyModel } from '@tunefleet/testing';

export const WORKER_TOKEN = 'worker-token-of-the-bench';
const API_KEY = 'key-of-the-bench';
const TEAM = 'bench';

/** The control plane as it runs, on a PostgreSQL with its usual durable settings and a Redis, each a process of its own. */
export class BenchService {
  private stopped: Promise<void> | null = null;

  private constructor(
    readonly client: TunefleetClient,
    readonly grpcAddress: string,
    readonly redis: RedisServer,
    readonly db: pg.Pool,
    /** Name of a base model that intake can look up. */
    readonly model: string,
    private readonly dir: string,
    private readonly postgres: EmbeddedPostgres,
    private readonly process: ChildProcess,
  ) {}

  static async start(): Promise<BenchService> {
    const dir = await mkdtemp(join(tmpdir(), 'tunefleet-dispatch-'));
    const model = await writeTinyModel(join(dir, 'models', 'tiny'));
    const [postgres, redis] = await Promise.all([startEmbeddedPostgres({ dataDir: join(dir, 'postgres'), logger: silentLogger }), RedisServer.start()]);
    const child = fork(join(process.cwd(), 'dist', 'control-plane.mjs'), [], {
      cwd: dir,
      execArgv: process.env['TUNEFLEET_BENCH_NODE_ARGS']?.split(' ') ?? [],
      env: {
        ...{ PATH: process.env['PATH'], HOME: process.env['HOME'], DATABASE_URL: postgres.url, REDIS_URL: redis.url, TUNEFLEET_DATA_DIR: join(dir, 'data'), TUNEFLEET_CACHE_DIR: join(dir, 'cache') },
        ...{ TUNEFLEET_LOCAL_MODELS: join(dir, 'models'), TUNEFLEET_HTTP_PORT: '0', TUNEFLEET_GRPC_PORT: '0', TUNEFLEET_API_KEY: API_KEY, TUNEFLEET_WORKER_TOKEN: WORKER_TOKEN, TUNEFLEET_TEAM: TEAM },
      },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    const log = createWriteStream(join(dir, 'control-plane.log'));
    child.stdout?.pipe(log);
    child.stderr?.pipe(log, { end: false });
    const ready = await new Promise<{ readonly httpUrl: string; readonly grpcAddress: string }>((resolve, reject) => {
      child.once('close', (code) => readFile(join(dir, 'control-plane.log'), 'utf8').then((text) => reject(new Error(`the control plane ended with ${code}: ${text.slice(-2_000)}`)), reject));
      child.on('message', (message: { readonly type?: string; readonly httpUrl: string; readonly grpcAddress: string }) => message.type === 'ready' && resolve(message));
    });
    const db = new pg.Pool({ connectionString: postgres.url, max: 4 });
    db.on('error', () => undefined);
    return new BenchService(new TunefleetClient({ baseUrl: ready.httpUrl, apiKey: API_KEY }), ready.grpcAddress, redis, db, model, dir, postgres, child);
  }

  /** May be called again: it stops once. */
  stop(): Promise<void> {
    this.stopped ??= this.stopAll();
    return this.stopped;
  }

  private async stopAll(): Promise<void> {
    const ended = this.process.exitCode ?? this.process.signalCode ?? new Promise((resolve) => this.process.once('close', resolve));
    this.process.kill('SIGTERM');
    await ended;
    await Promise.all([this.db.end(), this.redis.close(), this.postgres.stop()]);
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Queued rows straight into the record, as intake leaves them; then the scheduler is told. @returns their ids */
  async insertQueued(count: number, options: { readonly selector?: Readonly<Record<string, string>>; readonly priority?: number } = {}): Promise<string[]> {
    const ids = Array.from({ length: count }, () => newId('fineTuningJob'));
    await this.db.query(
      `insert into job (id, team_id, kind, status, priority, spec, worker_spec, base_model, memory_bytes_estimate, total_steps, worker_selector, queued_at)
       select id, (select id from team where name = $1), 'fine-tune', 'queued', $2, '{}', '{"base":{"id":"local/tiny","revision":"r1"}}', 'local/tiny', 1000000, 100, $3, clock_timestamp()
       from unnest($4::text[]) as t (id)`,
      [TEAM, options.priority ?? 0, JSON.stringify(options.selector ?? {}), ids],
    );
    await this.db.query('analyze job');
    await this.wakeScheduler();
    return ids;
  }

  async wakeScheduler(): Promise<void> {
    await this.db.query(`select pg_notify('tunefleet_wake', 'schedule')`);
  }

  /** CPU time so far, of the control plane and of PostgreSQL's processes: what a measure costs, whatever else the machine does. Linux only; 0 elsewhere. */
  async cpuMs(): Promise<{ readonly controlPlane: number; readonly postgres: number }> {
    const { rows } = await this.db.query<{ pid: number }>('select pid from pg_stat_activity');
    const times = await Promise.all(rows.map(({ pid }) => cpuMsOf(pid)));
    return { controlPlane: await cpuMsOf(this.process.pid ?? 0), postgres: times.reduce((sum, ms) => sum + ms, 0) };
  }

  async one<T>(text: string, values: readonly unknown[] = []): Promise<T> {
    const { rows } = await this.db.query(text, [...values]);
    if (rows[0] === undefined) throw new Error(`no row for ${text}`);
    return rows[0] as T;
  }
}

/** Ticks of /proc are hundredths of a second. */
async function cpuMsOf(pid: number): Promise<number> {
  try {
    const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
    return 10 * (Number(fields[11]) + Number(fields[12]));
  } catch {
    return 0;
  }
}

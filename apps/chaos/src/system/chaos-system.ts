import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBlobsFs } from '@tunefleet/blobs-fs';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { descendants, freePort, isAlive, RedisServer, TcpProxy, writeTinyModel, type ProcessInfo } from '@tunefleet/testing';
import { installAudit } from '../record/audit';
import { readRecord } from '../record/read-record';
import type { ChaosRecord } from '../record/record';
import { Part } from './part';
import { PostgresServer } from './postgres-server';

export interface ChaosSystemOptions {
  /** Where the built programs are. */
  readonly programs: string;
  readonly workers: number;
  readonly leaseSeconds: number;
}

export interface Replica {
  readonly part: Part;
  readonly client: TunefleetClient;
  /** `http://host:port`, for proxies. */
  readonly grpcUrl: string;
}

export interface Worker {
  readonly part: Part;
  /** Between the worker and the replicas. */
  readonly line: TcpProxy;
}

const API_KEY = 'key-of-the-chaos-run';
const WORKER_TOKEN = 'worker-token-of-the-chaos-run';

/** Two replicas, their workers with real engines, PostgreSQL and Redis, each a process (or several), on a folder of their own. */
export class ChaosSystem {
  private constructor(
    readonly dir: string,
    readonly model: string,
    readonly options: ChaosSystemOptions,
    readonly postgres: PostgresServer,
    readonly redis: RedisServer,
    readonly replicas: readonly Replica[],
    readonly workers: readonly Worker[],
  ) {}

  static async start(options: ChaosSystemOptions): Promise<ChaosSystem> {
    for (const name of ['control-plane', 'worker', 'engine']) if (!existsSync(join(options.programs, `${name}.mjs`))) throw new Error(`${name}.mjs is missing in ${options.programs}: run "npm run setup"`);
    const dir = await mkdtemp(join(tmpdir(), 'tunefleet-chaos-'));
    await mkdir(join(dir, 'logs'));
    const model = await writeTinyModel(join(dir, 'models', 'tiny'));
    const [postgres, redis] = await Promise.all([PostgresServer.start(join(dir, 'postgres')), RedisServer.start()]);
    const env = environment(dir, options);
    const replicas: Replica[] = [];
    for (const name of ['replica-1', 'replica-2']) replicas.push(await newReplica(dir, options, { ...env, DATABASE_URL: postgres.url, REDIS_URL: redis.url }, name));
    const workers: Worker[] = [];
    for (let index = 0; index < options.workers; index++) {
      // Spread over the replicas; when one is away, its workers are let through to the other.
      const [first = '', ...others] = index % 2 === 0 ? replicas.map(({ grpcUrl }) => grpcUrl) : replicas.map(({ grpcUrl }) => grpcUrl).reverse();
      const line = await TcpProxy.start(first, ...others);
      workers.push({ line, part: newPart(dir, options, `worker-${index + 1}`, 'worker', { ...env, TUNEFLEET_CONTROL_PLANE: new URL(line.url).host, TUNEFLEET_WORKER_NAME: `worker-${index + 1}`, TUNEFLEET_WORKER_STOP_SECONDS: '10' }) });
    }
    const system = new ChaosSystem(dir, model, options, postgres, redis, replicas, workers);
    try {
      // One after the other: the first one migrates.
      for (const { part } of replicas) {
        part.begin();
        await part.untilReady();
      }
      await postgres.query(installAudit);
      for (const { part } of workers) part.begin();
      await Promise.all(workers.map(({ part }) => part.untilReady()));
      return system;
    } catch (error) {
      await system.stop();
      throw error;
    }
  }

  async record(): Promise<ChaosRecord> {
    return readRecord((sql) => this.postgres.query(sql), await openBlobsFs(join(this.dir, 'data', 'blobs')));
  }

  /** In good order. @returns what is still running of what was started: should be none */
  async stop(): Promise<readonly ProcessInfo[]> {
    const before = await descendants(process.pid);
    for (const { line } of this.workers) line.resume();
    await Promise.all(this.workers.map(({ part }) => part.stop()));
    await Promise.all(this.replicas.map(({ part }) => part.stop()));
    await Promise.all([this.postgres.stop(), this.redis.close(), ...this.workers.map(({ line }) => line.vanish())]);
    const left = before.filter(({ pid, program }) => ['control-plane', 'worker', 'engine', 'postgres', 'redis-server'].includes(program) && isAlive(pid));
    for (const { pid } of left) process.kill(pid, 'SIGKILL');
    return left;
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

async function newReplica(dir: string, options: ChaosSystemOptions, env: NodeJS.ProcessEnv, name: string): Promise<Replica> {
  const [httpPort, grpcPort] = [await freePort(), await freePort()];
  const part = newPart(dir, options, name, 'control-plane', { ...env, TUNEFLEET_HTTP_PORT: `${httpPort}`, TUNEFLEET_GRPC_PORT: `${grpcPort}` });
  // What is tried again, and where, is the caller's.
  const client = new TunefleetClient({ baseUrl: `http://127.0.0.1:${httpPort}`, apiKey: API_KEY, maxRetries: 0, timeoutMs: 5_000 });
  return { part, client, grpcUrl: `http://127.0.0.1:${grpcPort}` };
}

function newPart(dir: string, { programs }: ChaosSystemOptions, name: string, program: string, env: NodeJS.ProcessEnv): Part {
  return new Part({ name, file: join(programs, `${program}.mjs`), env, logFile: join(dir, 'logs', `${name}.log`), stopGraceMs: 25_000 });
}

/** Nothing of the developer's own settings. */
function environment(dir: string, options: ChaosSystemOptions): NodeJS.ProcessEnv {
  const { PATH, HOME, LANG, TF_CPP_MIN_LOG_LEVEL = '2' } = process.env;
  return {
    ...{ PATH, HOME, LANG, TF_CPP_MIN_LOG_LEVEL },
    TUNEFLEET_DATA_DIR: join(dir, 'data'),
    TUNEFLEET_CACHE_DIR: join(dir, 'cache'),
    TUNEFLEET_LOCAL_MODELS: join(dir, 'models'),
    TUNEFLEET_API_KEY: API_KEY,
    TUNEFLEET_WORKER_TOKEN: WORKER_TOKEN,
    TUNEFLEET_LEASE_SECONDS: `${options.leaseSeconds}`,
    // Here it is never the machine's fault.
    TUNEFLEET_CORDON_FAILURES: '0',
  };
}

import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TunefleetError, sleep, type Logger } from '@tunefleet/foundation';
import { cacheDirectory } from '@tunefleet/ml-models/specs';
import { z } from 'zod';
import { lockDataDir } from './data-dir-lock';
import { openDatabase, type Database } from './database';
import { ManagedChild, type ChildSpec } from './managed-child';
import { DEFAULT_RESTART_POLICY, type RestartPolicy } from './restart-policy';
import { loadSecrets } from './secrets';

export interface ServiceOptions {
  /** Made when missing; relative to the working directory. */
  readonly dataDir: string;
  readonly workers: number;
  /** 0: any free port. */
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly environment: NodeJS.ProcessEnv;
  readonly logger: Logger;
  /** Children write to this terminal instead of `<dataDir>/logs`. */
  readonly verbose?: boolean;
  /** Aborting it while the service starts stops what was started. */
  readonly signal?: AbortSignal;
  readonly restartPolicy?: RestartPolicy;
  /** Folder of `control-plane.mjs` and `worker.mjs`; default: beside this bundle. */
  readonly programs?: string;
}

export interface RunningService {
  readonly url: string;
  readonly apiKey: string;
  readonly dataDir: string;
  readonly embeddedDatabase: boolean;
  /** Process ids by name, as they are now. */
  pids(): Readonly<Record<string, number | undefined>>;
  /** Stops workers, control plane and database, in this order; a second call waits for the same stop. */
  stop(): Promise<void>;
  /** For a process that is about to exit: kills workers and control plane and tells the database to stop, at once. */
  kill(): void;
  /** Settles when the service has ended; rejects when a part could not be kept running. */
  readonly ended: Promise<void>;
}

const START_TIMEOUT_MS = 120_000;
const WORKER_STOP_MARGIN_MS = 15_000;
const POLL_MS = 50;
const LOG_BYTES_MAX = 16 * 1024 * 1024;
const readySchema = z.object({ httpUrl: z.url(), grpcAddress: z.string().min(1) });

/**
 * Starts the whole service on this machine: database, control plane, workers. Children that die are started again.
 * @returns once the control plane answers and every worker has said that it is connected, or has failed to in time
 * @throws conflict when one runs on this data folder; unavailable when a part cannot be started; cancelled when aborted
 */
export async function startService(options: ServiceOptions): Promise<RunningService> {
  const { logger, environment } = options;
  const dataDir = resolve(options.dataDir);
  await mkdir(join(dataDir, 'logs'), { recursive: true, mode: 0o711 });
  const unlock = await lockDataDir(dataDir);
  const stack: { database?: Database; controlPlane?: ManagedChild; workers: ManagedChild[] } = { workers: [] };
  let resolveEnded = (): void => undefined;
  let rejectEnded = (_: Error): void => undefined;
  const ended = new Promise<void>((resolvePromise, reject) => {
    resolveEnded = resolvePromise;
    rejectEnded = reject;
  });
  ended.catch(() => undefined);
  let failure: TunefleetError | undefined;
  const onGivenUp = (error: TunefleetError): void => {
    failure ??= error;
    void stop();
  };

  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= stopAll());
  const stopAll = async (): Promise<void> => {
    try {
      await rm(serverFile(dataDir), { force: true });
      await Promise.all(stack.workers.map((worker) => worker.stop()));
      await stack.controlPlane?.stop();
      await stack.database?.stop();
      await unlock();
      if (failure === undefined) resolveEnded();
      else rejectEnded(failure);
    } catch (error) {
      rejectEnded(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  };
  const check = (): void => {
    if (failure !== undefined) throw failure;
    if (options.signal?.aborted) throw new TunefleetError('cancelled', 'stopped while starting');
  };

  try {
    const secrets = await loadSecrets(dataDir, environment);
    const database = await openDatabase(environment['DATABASE_URL'] || undefined, dataDir, logger);
    stack.database = database;
    check();

    const bound = { httpPort: options.httpPort, grpcPort: options.grpcPort, grpcAddress: '', url: '' };
    const shared: NodeJS.ProcessEnv = { ...environment, TUNEFLEET_DATA_DIR: dataDir, TUNEFLEET_CACHE_DIR: cacheDirectory(environment), TUNEFLEET_WORKER_TOKEN: secrets.workerToken };
    const child = async (name: string, program: string, rest: Pick<ChildSpec, 'env' | 'stopGraceMs' | 'onReady' | 'onRefused'>): Promise<ManagedChild> => {
      const logFile = options.verbose === true ? undefined : await openLog(join(dataDir, 'logs', `${name}.log`));
      const file = join(options.programs ?? dirname(fileURLToPath(import.meta.url)), program);
      return new ManagedChild({ name, file, logFile, ...rest }, options.restartPolicy ?? DEFAULT_RESTART_POLICY, logger, onGivenUp);
    };

    const controlPlane = await child('control-plane', 'control-plane.mjs', {
      stopGraceMs: 15_000,
      env: () => ({
        ...shared,
        DATABASE_URL: database.url,
        TUNEFLEET_API_KEY: secrets.apiKey,
        TUNEFLEET_HTTP_PORT: String(bound.httpPort),
        TUNEFLEET_GRPC_PORT: String(bound.grpcPort),
      }),
      onReady: (message) => {
        const ready = readySchema.safeParse(message);
        if (!ready.success) return logger.error({ child: 'control-plane' }, 'said that it is ready without its addresses');
        // A restarted control plane takes the same ports: clients and workers know them.
        bound.url = ready.data.httpUrl.replace(/\/$/, '');
        bound.grpcAddress = ready.data.grpcAddress;
        bound.httpPort = portOf(bound.url);
        bound.grpcPort = portOf(`http://${bound.grpcAddress.replace(/^[a-z]+:\/\//, '')}`);
      },
    });
    stack.controlPlane = controlPlane;
    controlPlane.start();
    await until(async () => bound.url !== '' && (await isHealthy(bound.url)), 'the control plane did not become ready', check);

    let workersReady = 0;
    const refused = new Map<string, string>();
    for (let index = 1; index <= options.workers; index++) {
      const name = `worker-${index}`;
      let counted = false;
      const { DATABASE_URL: _database, REDIS_URL: _redis, TUNEFLEET_API_KEY: _key, ...workerEnvironment } = shared;
      const worker = await child(name, 'worker.mjs', {
        // The worker ends by itself before that.
        stopGraceMs: (Number(process.env['TUNEFLEET_WORKER_STOP_SECONDS']) || 30) * 1_000 + WORKER_STOP_MARGIN_MS,
        env: () => ({ ...workerEnvironment, TUNEFLEET_CONTROL_PLANE: bound.grpcAddress, TUNEFLEET_WORKER_NAME: name }),
        onReady: () => {
          if (!counted) workersReady++;
          counted = true;
        },
        onRefused: (reason) => {
          if (!counted) refused.set(name, reason);
          logger.error({ child: name }, refusalText(name, reason, dataDir));
        },
      });
      stack.workers.push(worker);
      worker.start();
    }
    await until(() => Promise.resolve(workersReady + refused.size === options.workers), 'not all workers connected', check);
    const [first] = refused;
    // Without any worker nothing would ever run.
    if (first !== undefined && workersReady === 0) throw new TunefleetError('unavailable', refusalText(...first, dataDir));
    await writeAtomically(serverFile(dataDir), `${JSON.stringify({ url: bound.url, grpcAddress: bound.grpcAddress, pid: process.pid })}\n`);
    return {
      url: bound.url,
      apiKey: secrets.apiKey,
      dataDir,
      embeddedDatabase: database.embedded,
      pids: () => Object.fromEntries([controlPlane, ...stack.workers].map((managed) => [managed.spec.name, managed.pid])),
      stop,
      kill: () => {
        for (const managed of [...stack.workers, controlPlane]) managed.kill();
        database.kill();
      },
      ended,
    };
  } catch (error) {
    await stop();
    throw failure ?? error;
  }
}

function refusalText(name: string, reason: string, dataDir: string): string {
  return `the control plane refused ${name} (${reason}): it is not started again. To let it join anew, as another worker, stop the service, delete ${join(dataDir, 'workers', name)} and start it; to do without it, start with one worker less`;
}

/** Where other commands find the service that runs on a data folder. */
function serverFile(dataDir: string): string {
  return join(dataDir, 'server.json');
}

/** A log that has grown large makes room at the next start; one older file is kept. */
async function openLog(file: string): Promise<string> {
  const size = (await stat(file).catch(() => null))?.size ?? 0;
  if (size > LOG_BYTES_MAX) await rename(file, `${file}.1`);
  return file;
}

async function until(condition: () => Promise<boolean>, message: string, check: () => void): Promise<void> {
  for (const deadline = performance.now() + START_TIMEOUT_MS; !(await condition()); await sleep(POLL_MS)) {
    check();
    if (performance.now() > deadline) throw new TunefleetError('unavailable', `${message} within ${START_TIMEOUT_MS / 1000} s; see the logs folder`);
  }
  check();
}

async function isHealthy(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}

function portOf(url: string): number {
  return Number(new URL(url).port);
}

async function writeAtomically(file: string, content: string): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`;
  await writeFile(temporary, content);
  await rename(temporary, file);
}

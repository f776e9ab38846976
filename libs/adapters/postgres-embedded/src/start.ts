import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, open, readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { TunefleetError, sleep, type Logger } from '@tunefleet/foundation';
import { serverAccount, type ServerAccount } from './account';
import { findBinaries } from './binaries';
import { locateCluster, type ClusterLocation } from './cluster-location';
import { SUPERUSER, initialiseCluster } from './initialise';
import { giveUpOwnership, takeOwnership } from './owner';
import { answers, forgetPostmaster, isAlive, isPostgres, readPostmaster } from './postmaster';

export interface EmbeddedPostgresOptions {
  /** Made when missing. Holds the cluster (or says where it is), the password, and the server's log. */
  readonly dataDir: string;
  readonly logger: Logger;
  /** Loopback port; absent: a free one. Ignored when a server is running already. */
  readonly port?: number;
  /** Server settings on top of ours. Tests turn `fsync` off; nothing else should. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  /** Carries the password: never log it. */
  readonly url: string;
  /** True when the server was running before. */
  readonly adopted: boolean;
  /** Stops the server, unless it belongs to another process that is alive. */
  stop(): Promise<void>;
  /** For a process that is about to exit: tells the server to stop, without waiting. The next start recovers what is left. */
  signalStop(): void;
}

const DATABASE = 'postgres';
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const POLL_MS = 50;
const START_TRIES = 8;
const LOG_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Runs PostgreSQL on this machine's loopback interface with durable settings. A server left behind by a killed process is
 * adopted; a stale pid file is cleared; a crash of the server is recovered from its write-ahead log.
 * As root the server runs under the account `postgres` (see `cluster-location.ts` for where its files then are).
 * @throws unavailable saying what to do
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dataDir = resolve(options.dataDir);
  const { logger } = options;
  // Others may walk through (the server's account must), not look inside.
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  const account = serverAccount();
  const location = await locateCluster(dataDir, await findBinaries(), account);
  const settings = { ...DURABLE, ...options.settings };
  const password = await initialiseCluster(dataDir, location, account, settings['fsync'] !== 'off');

  const running = await adopt(location.clusterDir, password);
  if (running !== null) {
    const owned = await takeOwnership(dataDir);
    logger.info({ port: running.port, owned }, 'using the PostgreSQL server that is running already');
    return {
      url: urlOf(running.port, password),
      adopted: true,
      stop: async () => {
        if (owned) await stopServer(running.pid, dataDir);
      },
      signalStop: () => {
        if (owned) signalStop(running.pid);
      },
    };
  }
  await takeOwnership(dataDir);
  const started = await start(dataDir, location, account, password, settings, options.port, logger);
  logger.info({ port: started.port }, 'PostgreSQL is ready');
  return { url: urlOf(started.port, password), adopted: false, stop: () => stopServer(started.pid, dataDir), signalStop: () => signalStop(started.pid) };
}

/** What makes a commit survive a power cut; the defaults of the server, stated so that no configuration file weakens them. */
const DURABLE: Readonly<Record<string, string>> = {
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '100',
  shared_buffers: '64MB',
  password_encryption: 'scram-sha-256',
  log_timezone: 'UTC',
  timezone: 'UTC',
};

function urlOf(port: number, password: string): string {
  return `postgresql://${SUPERUSER}:${password}@127.0.0.1:${port}/${DATABASE}`;
}

/** Waits for a server that is starting or stopping; null when there is none, with its stale pid file cleared. */
async function adopt(clusterDir: string, password: string): Promise<{ pid: number; port: number } | null> {
  for (const deadline = Date.now() + READY_TIMEOUT_MS; ; await sleep(POLL_MS)) {
    const found = await readPostmaster(clusterDir);
    if (found === null) return null;
    if (!(await isPostgres(found.pid, clusterDir))) {
      await forgetPostmaster(clusterDir);
      return null;
    }
    if (found.port !== 0 && (await answers(urlOf(found.port, password), clusterDir))) return found;
    if (Date.now() > deadline) {
      throw new TunefleetError('unavailable', `the PostgreSQL server on ${clusterDir} (process ${found.pid}) is running but does not answer: stop it and start again`);
    }
  }
}

async function start(
  dataDir: string,
  location: ClusterLocation,
  account: ServerAccount | null,
  password: string,
  settings: Readonly<Record<string, string>>,
  fixedPort: number | undefined,
  logger: Logger,
): Promise<{ pid: number; port: number }> {
  for (let attempt = 1; ; attempt++) {
    const port = fixedPort ?? (await freePort());
    const log = join(dataDir, 'server.log');
    const { child, logStart } = await spawnServer(location, account, settings, port, log);
    const ready = await waitUntilReady(child, urlOf(port, password), location.clusterDir);
    if (ready && child.pid !== undefined) return { pid: child.pid, port };
    const tail = (await readFile(log, 'utf8').catch(() => '')).slice(logStart).trim();
    // A port taken meanwhile, or the memory of a server killed a moment ago that its last children still hold.
    const passing = /pre-existing shared memory|lock file "postmaster\.pid"|recovering|starting up/.test(tail) || (fixedPort === undefined && /Address already in use/i.test(tail));
    if (!passing || attempt === START_TRIES) {
      throw new TunefleetError('unavailable', `PostgreSQL did not start on ${location.clusterDir}, port ${port}: ${tail.slice(-1500) || `it said nothing; see ${log}`}`);
    }
    logger.warn({ attempt }, 'PostgreSQL could not start yet, trying again');
    await sleep(250 * attempt);
  }
}

async function spawnServer(
  location: ClusterLocation,
  account: ServerAccount | null,
  settings: Readonly<Record<string, string>>,
  port: number,
  log: string,
): Promise<{ child: ChildProcess; logStart: number }> {
  const size = (await stat(log).catch(() => null))?.size ?? 0;
  const keep = size < LOG_BYTES_MAX;
  // A file, not a pipe: the server must go on when this process is killed.
  const handle = await open(log, keep ? 'a' : 'w', 0o600);
  try {
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn(location.binaries.postgres, ['-D', location.clusterDir, '-p', String(port), ...flags], {
      ...(account ?? {}),
      cwd: location.clusterDir,
      env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
      stdio: ['ignore', handle.fd, handle.fd],
      // Ctrl-C reaches the whole process group; the server must outlive those who still write to it.
      detached: true,
    });
    child.unref();
    return { child, logStart: keep ? size : 0 };
  } finally {
    await handle.close();
  }
}

/** False when the process ended first. @throws when it could not be started at all */
async function waitUntilReady(child: ChildProcess, url: string, clusterDir: string): Promise<boolean> {
  let failure: Error | null = null;
  child.once('error', (error) => (failure = error));
  for (const deadline = Date.now() + READY_TIMEOUT_MS; Date.now() < deadline; await sleep(POLL_MS)) {
    if (failure !== null) throw new TunefleetError('unavailable', `could not run ${child.spawnfile}: ${(failure as Error).message}`, { cause: failure });
    if (child.exitCode !== null || child.signalCode !== null) return false;
    if (await answers(url, clusterDir)) return true;
  }
  child.kill('SIGKILL');
  throw new TunefleetError('unavailable', `PostgreSQL on ${clusterDir} was not ready within ${READY_TIMEOUT_MS / 1000} s`);
}

/** SIGINT is PostgreSQL's "fast" shutdown: ends sessions, writes a checkpoint, exits. */
async function stopServer(pid: number, dataDir: string): Promise<void> {
  signalStop(pid);
  for (const deadline = Date.now() + STOP_TIMEOUT_MS; isAlive(pid); await sleep(20)) {
    if (Date.now() > deadline) throw new TunefleetError('unavailable', `PostgreSQL (process ${pid}) did not stop within ${STOP_TIMEOUT_MS / 1000} s`);
  }
  await giveUpOwnership(dataDir);
}

function signalStop(pid: number): void {
  try {
    if (isAlive(pid)) process.kill(pid, 'SIGINT');
  } catch {
    // Gone between the two lines: what we want.
  }
}

function freePort(): Promise<number> {
  return new Promise((resolvePort, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => (address !== null && typeof address === 'object' ? resolvePort(address.port) : reject(new Error('no port'))));
    });
  });
}

import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sleep, TunefleetError, type Logger } from '@tunefleet/foundation';
import { findConnection, type Connection } from '../../connection/find-connection';
import { startService } from '../../supervisor';

const START_MS = 180_000;
const STOP_MS = 60_000;
const POLL_MS = 100;
const ANSWER_MS = 2_000;

/** The service the quickstart works with, and how it leaves it. */
export interface QuickstartService {
  readonly url: string;
  readonly apiKey: string;
  /** It ran before and is left alone. */
  readonly found: boolean;
  /** Stops what was started here; nothing for a service that was found. */
  stop(): Promise<void>;
  /** For a process that is about to exit. */
  kill(): void;
}

export interface ServiceWish {
  readonly dataDir: string;
  readonly port: number;
  /** Start it as a process of its own that stays when this one ends. */
  readonly keep: boolean;
  readonly environment: NodeJS.ProcessEnv;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Uses the service that runs from the data folder, or starts one. */
export async function openService(wish: ServiceWish): Promise<QuickstartService> {
  const running = await runningService(wish);
  if (running !== null) return { ...running, found: true, stop: () => Promise.resolve(), kill: () => undefined };
  if (wish.keep) return startApart(wish);
  const service = await startService({ dataDir: wish.dataDir, workers: 1, httpPort: wish.port, grpcPort: 0, environment: wish.environment, logger: wish.logger, signal: wish.signal });
  return { url: service.url, apiKey: service.apiKey, found: false, stop: () => service.stop(), kill: () => service.kill() };
}

/** `tunefleet up` in the background; it writes to `<data folder>/logs/up.log` and is stopped by `tunefleet down`. */
async function startApart(wish: ServiceWish): Promise<QuickstartService> {
  const logs = join(wish.dataDir, 'logs');
  await mkdir(logs, { recursive: true, mode: 0o711 });
  const logFile = join(logs, 'up.log');
  const log = openSync(logFile, 'a', 0o600);
  const cli = fileURLToPath(import.meta.url);
  const child = spawn(process.execPath, ['--enable-source-maps', cli, 'up', '--data-dir', wish.dataDir, '--port', String(wish.port)], { detached: true, env: wish.environment, stdio: ['ignore', log, log] });
  closeSync(log);
  child.unref();
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    for (const deadline = performance.now() + STOP_MS; hasEnded() === false && performance.now() < deadline; ) await sleep(POLL_MS);
  };
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
  for (const deadline = performance.now() + START_MS; ; await sleep(POLL_MS)) {
    const service = await runningService(wish);
    if (service !== null) return { ...service, found: false, stop, kill: () => void child.kill('SIGTERM') };
    if (hasEnded()) throw new TunefleetError('unavailable', `the service could not be started; see ${logFile}`);
    if (wish.signal.aborted || performance.now() > deadline) {
      await stop();
      throw wish.signal.aborted ? new TunefleetError('cancelled', 'stopped while starting') : new TunefleetError('unavailable', `the service was not ready within ${START_MS / 1000} s; see ${logFile}`);
    }
  }
}

async function runningService({ dataDir, environment }: ServiceWish): Promise<Connection | null> {
  let connection: Connection;
  try {
    connection = await findConnection({ flags: { dataDir }, environment: { TUNEFLEET_API_KEY: environment['TUNEFLEET_API_KEY'] }, workingDir: process.cwd() });
  } catch {
    return null;
  }
  try {
    return (await fetch(`${connection.url}/healthz`, { signal: AbortSignal.timeout(ANSWER_MS) })).ok ? connection : null;
  } catch {
    // A killed service leaves its address behind.
    return null;
  }
}

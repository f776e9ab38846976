import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { sleep } from '@tunefleet/foundation';
import { stopOnSignal } from '@tunefleet/testing';

const START_MS = 120_000;
const POLL_MS = 100;

/** Runs against `tunefleet up` with one worker, ready to train, and a data folder of its own; nothing of it is left, also when it is interrupted. */
export async function withOwnService<T>(work: (client: TunefleetClient) => Promise<T>): Promise<T> {
  const dataDir = await mkdtemp(join(tmpdir(), 'tunefleet-bench-service-'));
  const up = spawn(process.execPath, [join(process.cwd(), 'dist', 'cli.mjs'), 'up', '--data-dir', dataDir, '--port', '0'], { stdio: ['ignore', 'ignore', 'inherit'] });
  const release = stopOnSignal(() => end(up, dataDir));
  try {
    return await work(await connect(dataDir, up));
  } finally {
    await end(up, dataDir);
    release();
  }
}

async function connect(dataDir: string, up: ChildProcess): Promise<TunefleetClient> {
  for (const deadline = performance.now() + START_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    if (up.exitCode !== null) throw new Error(`the service ended with ${up.exitCode}`);
    try {
      const { url } = JSON.parse(await readFile(join(dataDir, 'server.json'), 'utf8')) as { url: string };
      const { apiKey } = JSON.parse(await readFile(join(dataDir, 'secrets.json'), 'utf8')) as { apiKey: string };
      const client = new TunefleetClient({ baseUrl: url, apiKey });
      if ((await client.workers.list()).data.some(({ status }) => status === 'online')) return client;
    } catch {
      // Not up yet.
    }
  }
  throw new Error(`the service was not ready within ${START_MS / 1000} s`);
}

async function end(up: ChildProcess, dataDir: string): Promise<void> {
  if (up.exitCode === null && up.signalCode === null) {
    const ended = new Promise<void>((resolve) => up.once('exit', () => resolve()));
    up.kill('SIGTERM');
    await ended;
  }
  await rm(dataDir, { recursive: true, force: true });
}

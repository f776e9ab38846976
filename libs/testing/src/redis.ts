import { spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const START_TIMEOUT_MS = 30_000;

/** Why tests on Redis cannot run here, or null when they can. */
export const redisMissing: string | null = findRedisServer() === null ? 'no redis-server in PATH (on Debian: apt-get install redis-server)' : null;

/**
 * A Redis server with nothing in it, for the spec file that calls this at its top level; ends with it.
 * @returns a function, because the URL is known once the tests run
 */
export function useRedis(): () => string {
  let folder: string | undefined;
  let server: ChildProcess | undefined;
  let url: string | undefined;
  beforeAll(async () => {
    const program = findRedisServer();
    if (program === null) throw new Error(`${redisMissing}`);
    folder = await mkdtemp(join(tmpdir(), 'tunefleet-test-redis-'));
    const port = await freePort();
    server = spawn(program, ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder], { stdio: 'ignore' });
    await answers(port, server);
    url = `redis://127.0.0.1:${port}`;
  }, START_TIMEOUT_MS);
  afterAll(async () => {
    if (server !== undefined && server.exitCode === null && server.signalCode === null) {
      const ended = new Promise((resolve) => server?.once('exit', resolve));
      server.kill('SIGTERM');
      await ended;
    }
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }, START_TIMEOUT_MS);
  return () => {
    if (url === undefined) throw new Error('Redis is there only while tests run');
    return url;
  };
}

function findRedisServer(): string | null {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const candidate = join(folder, 'redis-server');
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      continue;
    }
  }
  return null;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** Resolves once Redis answers PONG. */
async function answers(port: number, server: ChildProcess): Promise<void> {
  while (server.exitCode === null) {
    const pong = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
      socket.once('data', (data) => {
        socket.destroy();
        resolve(data.toString().startsWith('+PONG'));
      });
      socket.once('error', () => resolve(false));
    });
    if (pong) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`redis-server ended with ${server.exitCode}`);
}

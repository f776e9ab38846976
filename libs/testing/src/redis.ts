import { spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const START_TIMEOUT_MS = 30_000;

/** Why tests on Redis cannot run here, or null when they can. */
export const redisMissing: string | null = findRedisServer() === null ? 'no redis-server in PATH (on Debian: apt-get install redis-server)' : null;

/** A Redis server with nothing in it and nothing kept. */
export class RedisServer {
  private process: ChildProcess | undefined;

  private constructor(
    private readonly program: string,
    private readonly folder: string,
    private readonly port: number,
  ) {}

  static async start(): Promise<RedisServer> {
    const program = findRedisServer();
    if (program === null) throw new Error(`${redisMissing}`);
    const server = new RedisServer(program, await mkdtemp(join(tmpdir(), 'tunefleet-test-redis-')), await freePort());
    await server.begin();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Again, on the same port, as empty as at first. */
  async begin(): Promise<void> {
    const server = spawn(this.program, ['--port', `${this.port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', this.folder], { stdio: 'ignore' });
    this.process = server;
    await answers(this.port, server);
  }

  /** Ends the process; `begin` starts it again. */
  async end(signal: NodeJS.Signals): Promise<void> {
    const server = this.process;
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill(signal);
    await ended;
  }

  /** Forgets everything. */
  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1', () => socket.write('FLUSHALL\r\n'));
      socket.once('data', (data) => {
        socket.destroy();
        if (data.toString().startsWith('+OK')) resolve();
        else reject(new Error(`Redis answered ${data.toString().trim()}`));
      });
      socket.once('error', reject);
    });
  }

  /** For good. */
  async close(): Promise<void> {
    await this.end('SIGTERM');
    await rm(this.folder, { recursive: true, force: true });
  }
}

/**
 * A Redis server with nothing in it, for the spec file that calls this at its top level; ends with it.
 * @returns a function, because the URL is known once the tests run
 */
export function useRedis(): () => string {
  let server: RedisServer | undefined;
  beforeAll(async () => {
    server = await RedisServer.start();
  }, START_TIMEOUT_MS);
  afterAll(() => server?.close(), START_TIMEOUT_MS);
  return () => {
    if (server === undefined) throw new Error('Redis is there only while tests run');
    return server.url;
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

/** A port nobody listens on now. */
export function freePort(): Promise<number> {
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

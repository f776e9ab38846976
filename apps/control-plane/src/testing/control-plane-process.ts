import { fork, type ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createWriteStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { openBlobsFs } from '@tunefleet/blobs-fs';
import { silentLogger } from '@tunefleet/foundation';
import type { EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import type { BlobStore } from '@tunefleet/ports';
import { openStore, type Store } from '@tunefleet/store-prisma';
import { startTestPostgres } from '../fleet/testing/test-record';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..');

export const API_KEY = 'key-of-the-api-tests';
export const TEAM = 'tests';
/** Small, so that a file beyond it is quickly sent. */
export const MAX_FILE_BYTES = 256 * 1024;

export interface ExitedProcess {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * The control plane as it runs: its bundle as a child process, on a PostgreSQL of its own, with the queue in it. The record is also open
 * to the test, which plays the workers' part through it.
 */
export class ControlPlaneProcess {
  url = '';
  grpcAddress = '';
  private child: ChildProcess | null = null;
  exited: Promise<ExitedProcess> = Promise.resolve({ code: 0, signal: null });

  private constructor(
    readonly dir: string,
    private readonly bundle: string,
    readonly postgres: EmbeddedPostgres,
    readonly store: Store,
    readonly blobs: BlobStore,
  ) {}

  /** Bundles, starts the database and the process. */
  static async open(environment: NodeJS.ProcessEnv = {}): Promise<ControlPlaneProcess> {
    const dir = await mkdtemp(join(tmpdir(), 'control-plane-'));
    // Inside the workspace, where the bundle finds its packages.
    const bundle = join(root, 'dist', `control-plane-test-${process.pid}`);
    const [postgres] = await Promise.all([startTestPostgres(join(dir, 'postgres')), bundleInto(bundle)]);
    const store = openStore({ databaseUrl: postgres.url, logger: silentLogger, poolSize: 3 });
    const opened = new ControlPlaneProcess(dir, bundle, postgres, store, await openBlobsFs(join(dir, 'data', 'blobs')));
    try {
      await opened.start(environment);
    } catch (error) {
      await opened.close();
      throw error;
    }
    return opened;
  }

  async start(environment: NodeJS.ProcessEnv = {}): Promise<void> {
    const child = this.spawn(environment);
    this.child = child;
    const log = createWriteStream(this.logFile, { flags: 'a' });
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    this.exited = new Promise((resolve) => child.once('exit', (code, signal) => log.end(() => resolve({ code, signal }))));
    const ready = new Promise<void>((resolve) => {
      child.on('message', (message: { type?: string; httpUrl?: string; grpcAddress?: string }) => {
        if (message.type !== 'ready') return;
        this.url = message.httpUrl ?? '';
        this.grpcAddress = message.grpcAddress ?? '';
        resolve();
      });
    });
    await Promise.race([ready, this.exited.then(async () => Promise.reject(new Error(`the control plane did not start: ${await this.log()}`)))]);
  }

  /** A second process that is expected to end by itself. */
  async startAnother(environment: NodeJS.ProcessEnv): Promise<{ readonly code: number | null; readonly output: string }> {
    const child = this.spawn(environment);
    let output = '';
    child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stdout?.resume();
    return new Promise((resolve) => child.once('close', (code) => resolve({ code, output })));
  }

  private spawn(environment: NodeJS.ProcessEnv): ChildProcess {
    return fork(join(this.bundle, 'control-plane.mjs'), [], {
      cwd: this.dir,
      execArgv: ['--enable-source-maps'],
      env: {
        PATH: process.env['PATH'],
        DATABASE_URL: this.postgres.url,
        TUNEFLEET_DATA_DIR: join(this.dir, 'data'),
        TUNEFLEET_CACHE_DIR: join(this.dir, 'cache'),
        TUNEFLEET_HTTP_PORT: '0',
        TUNEFLEET_GRPC_PORT: '0',
        TUNEFLEET_API_KEY: API_KEY,
        TUNEFLEET_WORKER_TOKEN: 'worker-token-of-the-api-tests',
        TUNEFLEET_TEAM: TEAM,
        TUNEFLEET_MAX_FILE_BYTES: String(MAX_FILE_BYTES),
        // The catalogue describes its models without a network.
        TUNEFLEET_MODEL_SOURCES: 'mirror',
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
  }

  get logFile(): string {
    return join(this.dir, 'control-plane.log');
  }

  log(): Promise<string> {
    return readFile(this.logFile, 'utf8');
  }

  /** Log lines as objects. */
  async logLines(): Promise<readonly Readonly<Record<string, unknown>>[]> {
    return (await this.log())
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  /** As when the process that started it dies. */
  disconnect(): void {
    this.child?.disconnect();
  }

  async close(): Promise<void> {
    this.signal('SIGKILL');
    await this.exited;
    await this.store.close();
    await this.postgres.stop();
    await rm(this.bundle, { recursive: true, force: true });
    await rm(this.dir, { recursive: true, force: true });
  }

  /** A request as fetch sends it, with the key. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.url + path, { ...init, headers: { authorization: `Bearer ${API_KEY}`, ...init.headers } });
  }

  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return this.fetch(path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) });
  }

  async upload(content: string, purpose = 'fine-tune', filename = 'rows.jsonl'): Promise<string> {
    const form = new FormData();
    form.append('purpose', purpose);
    form.append('file', new Blob([content]), filename);
    const response = await this.fetch('/v1/files', { method: 'POST', body: form });
    return ((await response.json()) as { id: string }).id;
  }
}

async function bundleInto(outdir: string): Promise<void> {
  await build({
    absWorkingDir: root,
    entryPoints: { 'control-plane': 'apps/control-plane/src/main.ts' },
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    tsconfig: 'tsconfig.base.json',
    sourcemap: 'linked',
    logLevel: 'silent',
  });
}

import { fork, type ChildProcess } from 'node:child_process';
import { createWriteStream, existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import type { Plan, Snapshot } from '@tunefleet/domain-scheduling';
import { silentLogger, sleep, systemClock, type JsonObject, type Logger } from '@tunefleet/foundation';
import type { AttemptRecord } from '@tunefleet/ports';
import { ControlLoops } from '../../loops';
import { AttemptEndings } from '../attempt-endings';
import { FleetServer, type FleetServerOptions } from '../fleet-server';
import { FlakyProxy } from './flaky-proxy';
import { firstFit, openTestRecord, type TestRecord } from './test-record';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../../..');
const bundles = join(root, 'dist', `fleet-test-${process.pid}`);

export const WORKER_TOKEN = 'token-of-the-fleet-tests';
/** Longer than any wait: on a busy machine no lease may run out where a test is not about that. */
const LEASE_MS = 120_000;
const WAIT_MS = 45_000;
const POLL_MS = 10;

export interface FakeRun {
  readonly steps: number;
  readonly checkpointEvery?: number;
  readonly holdAt?: number;
  readonly gate?: string;
  readonly crashAt?: number;
  readonly ignoreStop?: boolean;
  readonly failWith?: string;
  readonly resultBytes?: number;
}

export interface HarnessOptions {
  /** Over the usual ones. */
  readonly server?: Partial<FleetServerOptions>;
  readonly logger?: Logger;
}

export interface TestWorker {
  readonly name: string;
  readonly process: ChildProcess;
  readonly exited: Promise<number | NodeJS.Signals | null>;
}

/** Bundles the real worker process (with short times) and the fake engine beside it, once per test file. */
export async function bundleWorker(): Promise<void> {
  await build({
    entryPoints: ['worker-process-fast', 'fake-engine'].map((name) => join(root, 'apps/worker/src/testing', `${name}.ts`)),
    outdir: bundles,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    logLevel: 'silent',
  });
}

export function removeBundles(): Promise<void> {
  return rm(bundles, { recursive: true, force: true });
}

/** A control plane's fleet side on a real record, reached through a proxy that can be cut, and workers as processes. */
export class FleetHarness {
  readonly dir: string;
  readonly record: TestRecord;
  readonly proxy: FlakyProxy;
  private proxyPort = 0;
  private leaseMs = LEASE_MS;
  private server: FleetServer | null = null;
  private loops: ControlLoops | null = null;
  private readonly workers = new Set<TestWorker>();

  private constructor(
    dir: string,
    record: TestRecord,
    private readonly plan: (snapshot: Snapshot) => Plan,
    private readonly options: HarnessOptions,
  ) {
    this.dir = dir;
    this.record = record;
    this.proxy = new FlakyProxy(0);
  }

  /** @param plan what is tested is everything after it, so it is a simple one by default */
  static async open(databaseUrl: string, plan: (snapshot: Snapshot) => Plan = firstFit, options: HarnessOptions = {}): Promise<FleetHarness> {
    const harness = new FleetHarness(await mkdtemp(join(tmpdir(), 'fleet-')), await openTestRecord(databaseUrl), plan, options);
    harness.proxyPort = await harness.proxy.listen();
    await harness.startControlPlane();
    return harness;
  }

  async close(): Promise<void> {
    for (const worker of this.workers) worker.process.kill('SIGKILL');
    await Promise.all([...this.workers].map((worker) => worker.exited));
    await this.killControlPlane();
    await this.proxy.close();
    await this.record.close();
    await rm(this.dir, { recursive: true, force: true });
  }

  async startControlPlane(): Promise<void> {
    const { fleet, access, records, blobs, outbox, queue } = this.record;
    const logger = this.options.logger ?? silentLogger;
    const endings = new AttemptEndings({ fleet, records, blobs, resultCsv: (points) => points.map((point) => `${point.step},${point.name},${point.value}\n`).join(''), logger });
    this.server = new FleetServer(
      { host: '127.0.0.1', port: 0, sharedToken: WORKER_TOKEN, ...this.options.server, settings: { beatIntervalMs: 200, silenceMs: 1_500, leaseMs: this.leaseMs, artifactChunkBytes: 16 * 1024, ...this.options.server?.settings } },
      { store: fleet, access, blobs, endings, clock: systemClock, logger },
    );
    this.proxy.retarget(await this.server.start());
    this.loops = new ControlLoops({
      store: fleet,
      records,
      outbox,
      queue,
      endings,
      plan: this.plan,
      leaseMs: this.leaseMs,
      settings: { comeBackMs: this.leaseMs / 2 },
      clock: systemClock,
      logger,
      intervals: { relayMs: 200, scheduleMs: 200, reconcileMs: 200 },
    });
    await this.loops.start();
  }

  /** Before workers are started: leases run out after this time. */
  async shortenLeases(leaseMs: number): Promise<void> {
    this.leaseMs = leaseMs;
    await this.killControlPlane();
    await this.startControlPlane();
  }

  /** As a killed process looks to its workers: streams break without a word. */
  async killControlPlane(): Promise<void> {
    this.proxy.refuse();
    await this.loops?.stop();
    await this.server?.stop();
    this.loops = null;
    this.server = null;
    this.proxy.allow();
  }

  repairs(): Readonly<Record<string, number>> {
    return this.loops?.status().repairs ?? {};
  }

  /** `host:port`, through the proxy. */
  get address(): string {
    return `127.0.0.1:${this.proxyPort}`;
  }

  startWorker(name: string, options: { token?: string; labels?: string; env?: Readonly<Record<string, string>>; logFile?: string } = {}): TestWorker {
    const child = fork(join(bundles, 'worker-process-fast.mjs'), [], {
      cwd: this.dir,
      env: {
        PATH: process.env['PATH'],
        TUNEFLEET_CONTROL_PLANE: `127.0.0.1:${this.proxyPort}`,
        TUNEFLEET_WORKER_TOKEN: options.token ?? WORKER_TOKEN,
        TUNEFLEET_WORKER_NAME: name,
        TUNEFLEET_WORKER_LABELS: options.labels ?? '',
        TUNEFLEET_DATA_DIR: this.dir,
        TUNEFLEET_LOG_LEVEL: process.env['FLEET_TEST_LOG'] ?? 'silent',
        ...options.env,
      },
      stdio: ['ignore', options.logFile === undefined ? 'inherit' : 'pipe', 'inherit', 'ipc'],
    });
    if (options.logFile !== undefined) child.stdout?.pipe(createWriteStream(options.logFile, { flags: 'a' }));
    const exited = new Promise<number | NodeJS.Signals | null>((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
    const worker = { name, process: child, exited };
    this.workers.add(worker);
    return worker;
  }

  /** Kills the agent the hard way and starts it again, as its supervisor would. */
  async killAndRestart(worker: TestWorker): Promise<TestWorker> {
    worker.process.kill('SIGKILL');
    await worker.exited;
    this.workers.delete(worker);
    return this.startWorker(worker.name);
  }

  submit(fake: FakeRun, extra: JsonObject = {}, afterJobIds: readonly string[] = []): Promise<string> {
    return this.record.submit({ base: { id: 'base', revision: 'r1' }, tuner: { kind: 'lora' }, microBatchSize: 4, fake: { ...fake }, ...extra }, afterJobIds);
  }

  gate(name: string): string {
    return join(this.dir, `gate-${name}`);
  }

  openGate(name: string): Promise<void> {
    return writeFile(this.gate(name), '');
  }

  /** Waits until the job has stored the metric of that step. */
  async untilStep(jobId: string, step: number): Promise<void> {
    await until(`step ${step} of ${jobId}`, async () => (await this.record.losses(jobId)).some((point) => point.step >= step));
  }

  async untilStatus(jobId: string, status: string): Promise<void> {
    let seen = '';
    await until(
      `${jobId} to be ${status}`,
      async () => {
        const job = await this.record.fleet.getJob(jobId);
        seen = `${job?.status ?? 'gone'} ${JSON.stringify(job?.error ?? null)} ${job?.waitingReason ?? ''}`;
        return job?.status === status;
      },
      () => seen,
    );
  }

  async attempts(jobId: string): Promise<readonly AttemptRecord[]> {
    return [...(await this.record.records.listAttempts(jobId))].sort((a, b) => a.epoch - b.epoch);
  }
}

/** Waits for a condition, not for a time; the bound only ends a test that would hang. */
export async function until(what: string, condition: () => Promise<boolean> | boolean, detail: () => string = () => ''): Promise<void> {
  const deadline = Date.now() + WAIT_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS} ms for ${what} ${detail()}`);
    await sleep(POLL_MS);
  }
}

/** True while a process of that id exists. */
export function isProcessAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

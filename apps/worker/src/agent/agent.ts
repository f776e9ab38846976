import { mkdir, rm } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { sleep, type Clock, type Logger } from '@tunefleet/foundation';
import type { DeviceReport, FromEngine } from '../engine-protocol';
import { ArtifactCache } from './artifact-cache';
import { ArtifactTransfer } from './artifact-transfer';
import { Attempt } from './attempt';
import { attemptFolder } from './attempt-folder';
import { EngineProcess, type EngineExit } from './engine-process';
import { loadIdentity, type WorkerIdentity } from './identity';
import { ServerLink, type ServerPayload, type WorkerPayload } from './server-link';
import { defaultAgentSettings, type AgentSettings } from './settings';
import { parseStopReason } from './stop-plan';

export interface AgentOptions {
  /** host:port */
  readonly controlPlane: string;
  readonly tls: boolean;
  readonly workerToken: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly version: string;
  readonly workerDir: string;
  readonly artifactCacheBytes: number;
  readonly engine: { readonly file: string; readonly env: Readonly<Record<string, string | undefined>> };
  readonly settings?: Partial<AgentSettings>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Once: the engine is up and the control plane knows the worker. */
  readonly onReady: (identity: WorkerIdentity) => void;
  /** The control plane will not have this worker; the agent has stopped trying. */
  readonly onRefused: (reason: string) => void;
}

export interface AgentHealth {
  readonly workerId: string | null;
  readonly connected: boolean;
  readonly engineReady: boolean;
  readonly attemptId: string | null;
}

const PROTOCOL_VERSION = 1;
const DEFAULT_CHUNK_BYTES = 256 * 1024;
const POLL_MS = 20;

/** Joins the three parts of a worker: the session with the control plane, the engine process, and the attempt that is under way. */
export class Agent {
  private readonly settings: AgentSettings;
  private readonly cache: ArtifactCache;
  private readonly engine: EngineProcess;
  private readonly client: fleet.FleetClient;
  private readonly metadata = new Metadata();
  private readonly link: ServerLink;
  private readonly transfer: ArtifactTransfer;
  private identity: WorkerIdentity | null = null;
  private device: DeviceReport | null = null;
  private jobKinds: readonly string[] = [];
  private modelInMemory: string | null = null;
  private modelsOnDisk: readonly string[] = [];
  private attempt: Attempt | null = null;
  private stopping = false;
  private announcedReady = false;
  private chunkBytes = DEFAULT_CHUNK_BYTES;
  private linkStarted = false;

  constructor(private readonly options: AgentOptions) {
    const { logger, clock } = options;
    this.settings = { ...defaultAgentSettings, ...options.settings };
    this.cache = new ArtifactCache(join(options.workerDir, 'artifacts'), options.artifactCacheBytes);
    this.metadata.set('authorization', `Bearer ${options.workerToken}`);
    this.client = new fleet.FleetClient(options.controlPlane, options.tls ? credentials.createSsl() : credentials.createInsecure(), {
      // The link decides when to try again; the channel underneath must not wait longer on its own.
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
    });
    this.transfer = new ArtifactTransfer({ client: this.client, metadata: this.metadata, chunkBytes: () => this.chunkBytes, backoff: this.settings.transfer, logger });
    this.engine = new EngineProcess({
      ...options.engine,
      restart: this.settings.engineRestart,
      readyMs: this.settings.engineReadyMs,
      logger,
      onReady: (device, jobKinds) => this.onEngineReady(device, jobKinds),
      onMessage: (message) => this.onEngine(message),
      onExit: (exit) => this.onEngineExit(exit),
    });
    this.link = new ServerLink({
      client: this.client,
      metadata: this.metadata,
      settings: this.settings,
      clock,
      logger,
      hello: () => this.hello(),
      beat: (seq) => ({ seq, memoryBytesFree: this.memoryBytesFree(), running: this.running() }),
      isUrgent: () => this.attempt !== null,
      onWelcome: (welcome) => this.onWelcome(welcome),
      onMessage: (message) => this.onServer(message),
      onRefused: (reason) => options.onRefused(reason),
    });
  }

  /** Starts the engine; the session opens once the engine has told what the device is. */
  async start(): Promise<void> {
    const attempts = this.attemptsDir();
    // Attempts of an earlier life are over: their boot is.
    await rm(attempts, { recursive: true, force: true });
    await mkdir(attempts, { recursive: true });
    await this.cache.open();
    this.identity = await loadIdentity(this.options.workerDir);
    this.engine.start();
  }

  /** Graceful: a running attempt writes a checkpoint and is handed back, so that another worker goes on at once. */
  async stop(): Promise<void> {
    this.stopping = true;
    const deadline = this.options.clock.monotonic() + this.settings.shutdownMs;
    this.sendCredit();
    if (this.link.isOpen) this.attempt?.stop('shutdown', Math.ceil((this.settings.shutdownMs * 2) / 3));
    while (this.attempt !== null && this.link.isOpen && this.options.clock.monotonic() < deadline) await sleep(POLL_MS);
    await this.kill();
  }

  /** At once: whatever runs is left to its lease. */
  async kill(): Promise<void> {
    this.stopping = true;
    if (this.linkStarted) await this.link.close();
    await this.engine.stop();
    this.client.close();
  }

  health(): AgentHealth {
    return { workerId: this.identity?.workerId ?? null, connected: this.link.isOpen, engineReady: this.engine.isReady, attemptId: this.attempt?.ref.attemptId ?? null };
  }

  get enginePid(): number | undefined {
    return this.engine.pid;
  }

  private onEngineReady(device: DeviceReport, jobKinds: readonly string[]): void {
    this.device = device;
    this.jobKinds = jobKinds;
    this.options.logger.info({ device, jobKinds }, 'engine ready');
    if (!this.linkStarted && !this.stopping) {
      this.linkStarted = true;
      this.link.start();
    }
    this.sendCredit();
    this.announceReady();
  }

  private onEngine(message: FromEngine): void {
    if (message.type === 'ready') return;
    if (message.type === 'model') {
      this.modelInMemory = message.inMemory;
      this.modelsOnDisk = message.onDisk;
      this.sendCredit();
      return;
    }
    this.attempt?.onEngine(message);
  }

  private onEngineExit(exit: EngineExit): void {
    this.modelInMemory = null;
    this.attempt?.onEngineExit(exit);
    this.sendCredit();
  }

  private onWelcome(welcome: fleet.Welcome): void {
    this.options.logger.info({ sessionId: welcome.sessionId, running: this.running().length }, 'connected to the control plane');
    if (welcome.artifactChunkBytes > 0) this.chunkBytes = welcome.artifactChunkBytes;
    this.attempt?.rewind();
    this.sendCredit();
    this.flush();
    this.announceReady();
  }

  private onServer(message: ServerPayload): void {
    switch (message.$case) {
      case 'assign':
        return this.onAssign(message.value);
      case 'lease':
        if (this.attempt?.is(message.value.attempt) === true) this.attempt.renewLease(message.value.validForMs);
        return;
      case 'stop':
        return this.onStop(message.value);
      case 'eventAck':
        if (this.attempt?.is(message.value.attempt) === true) this.attempt.onEventAck(message.value);
        return this.flush();
      case 'finishedAck':
        if (this.attempt?.is(message.value.attempt) === true) this.closeAttempt(this.attempt);
        return;
      case 'beat':
      case 'welcome':
      case 'goodbye':
        return;
    }
  }

  private onAssign(assign: fleet.Assign): void {
    const ref = assign.attempt;
    if (ref === undefined) return;
    const again = this.attempt?.is(ref) === true;
    const refusal = again ? null : this.refusal(assign);
    this.link.send({ $case: 'assignAck', value: { attempt: ref, accepted: refusal === null, reason: refusal ?? '' } });
    if (refusal !== null) return this.sendCredit();
    if (again) return;
    this.options.logger.info({ ...ref, kind: assign.kind, resumeStep: assign.resume?.step ?? null }, 'attempt assigned');
    this.attempt = new Attempt(
      { ...assign, attempt: ref },
      {
        settings: this.settings,
        cache: this.cache,
        transfer: this.transfer,
        folder: attemptFolder(join(this.attemptsDir(), ref.attemptId)),
        clock: this.options.clock,
        logger: this.options.logger,
        engine: this.engine,
        onOutput: () => this.flush(),
      },
    );
    void this.attempt.start();
  }

  private refusal(assign: fleet.Assign): string | null {
    if (this.stopping) return 'the worker is shutting down';
    if (this.attempt !== null) return `the worker runs attempt ${this.attempt.ref.attemptId}`;
    if (!this.engine.isReady) return 'the engine is not ready';
    if (!this.jobKinds.includes(assign.kind)) return `this worker cannot run ${assign.kind} jobs`;
    return null;
  }

  private onStop(stop: fleet.Stop): void {
    const ref = stop.attempt;
    if (ref === undefined) return;
    const reason = parseStopReason(stop.reason);
    if (this.attempt?.is(ref) === true) return this.attempt.stop(reason, stop.graceMs);
    // Nothing of it is here: say so, so that the record does not wait for it.
    this.link.send({ $case: 'finished', value: { attempt: ref, lastSeq: 0, outcome: { $case: 'stopped', value: { reason } } } });
  }

  /** Sends what the attempt has to say, as far as the window goes. */
  private flush(): void {
    for (;;) {
      if (this.attempt === null || !this.link.isOpen) return;
      const message: WorkerPayload | null = this.attempt.nextMessage();
      if (message === null) return;
      this.link.send(message);
    }
  }

  private closeAttempt(attempt: Attempt): void {
    attempt
      .close()
      .catch((error: unknown) => this.options.logger.warn({ err: error, ...attempt.ref }, 'the attempt left files behind'))
      .finally(() => {
        if (this.attempt === attempt) this.attempt = null;
        this.sendCredit();
      });
  }

  private sendCredit(): void {
    const jobs = !this.stopping && this.attempt === null && this.engine.isReady ? 1 : 0;
    this.link.send({ $case: 'credit', value: { jobs, modelsOnDisk: [...this.modelsOnDisk], modelInMemory: this.modelInMemory ?? '' } });
  }

  private announceReady(): void {
    if (this.announcedReady || !this.link.isOpen || !this.engine.isReady || this.identity === null) return;
    this.announcedReady = true;
    this.options.onReady(this.identity);
  }

  private hello(): fleet.Hello {
    const { name, version, labels } = this.options;
    return {
      protocolVersion: PROTOCOL_VERSION,
      workerId: this.identity?.workerId ?? '',
      bootId: this.identity?.bootId ?? '',
      name,
      version,
      device: this.device === null ? undefined : { ...this.device, memoryBytesFree: this.memoryBytesFree() },
      modelsOnDisk: [...this.modelsOnDisk],
      modelInMemory: this.modelInMemory ?? '',
      running: this.running(),
      labels: { ...labels },
      jobKinds: [...this.jobKinds],
    };
  }

  private running(): fleet.RunningAttempt[] {
    return this.attempt === null || this.attempt.isOver ? [] : [this.attempt.running()];
  }

  /** The device's own figure is the engine's at start; main memory can be read at any time. */
  private memoryBytesFree(): number {
    return this.device?.kind === 'gpu' ? this.device.memoryBytesFree : freemem();
  }

  private attemptsDir(): string {
    return join(this.options.workerDir, 'attempts');
  }
}

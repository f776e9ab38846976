import { mkdir, rm } from 'node:fs/promises';
import { freemem } from 'node:os';
import { join } from 'node:path';
import type { ChannelCredentials, ClientOptions } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { sleep, type Clock, type Logger, type Timers } from '@tunefleet/foundation';
import type { DeviceReport, FromEngine } from '../engine-protocol';
import { ArtifactCache } from './artifact-cache';
import { ArtifactTransfer } from './artifact-transfer';
import { Attempt, type AttemptDeps } from './attempt';
import { attemptFolder, type AttemptFolder } from './attempt-folder';
import { EngineProcess, type EngineExit, type EngineProcessOptions } from './engine-process';
import { loadIdentity, type WorkerIdentity } from './identity';
import { Membership } from './membership';
import { ServerLink, type ServerPayload, type WorkerPayload } from './server-link';
import { defaultAgentSettings, type AgentSettings } from './settings';
import { parseStopReason } from './stop-plan';

export interface AgentOptions {
  /** host:port */
  readonly controlPlane: string;
  /** With the options that go with it. */
  readonly channel: { readonly credentials: ChannelCredentials; readonly options: ClientOptions };
  /** Null: the worker has joined before. */
  readonly joinToken: string | null;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly version: string;
  readonly workerDir: string;
  readonly artifactCacheBytes: number;
  readonly engine: { readonly file: string; readonly env: Readonly<Record<string, string | undefined>> };
  readonly settings?: Partial<AgentSettings>;
  readonly clock: Clock;
  readonly timers?: Timers;
  /** In [0, 1), for jitter. */
  readonly random?: () => number;
  readonly logger: Logger;
  /** Once: the engine is up and the control plane knows the worker. */
  readonly onReady: (identity: WorkerIdentity) => void;
  /** The control plane will not have this worker; the agent has stopped trying. */
  readonly onRefused: (reason: string) => void;
}

export type Engine = Pick<EngineProcess, 'isReady' | 'pid' | 'recentLines' | 'start' | 'send' | 'kill' | 'stop'>;

/** All through which an agent touches its machine and the network; a simulation brings its own. */
export interface AgentParts {
  readonly client: Pick<fleet.FleetClient, 'session' | 'close'>;
  readonly membership: Pick<Membership, 'open' | 'metadata' | 'needsJoin' | 'join' | 'forget'>;
  readonly cache: AttemptDeps['cache'];
  readonly transfer: AttemptDeps['transfer'];
  engine(callbacks: Pick<EngineProcessOptions, 'onReady' | 'onMessage' | 'onExit'>): Engine;
  /** Makes the folders and says who this worker is. */
  open(): Promise<WorkerIdentity>;
  folderOf(attemptId: string): AttemptFolder;
  mainMemoryBytesFree(): number;
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
  private readonly parts: AgentParts;
  private readonly engine: Engine;
  private readonly link: ServerLink;
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

  constructor(
    private readonly options: AgentOptions,
    parts?: AgentParts,
  ) {
    const { logger, clock, timers, random } = options;
    this.settings = { ...defaultAgentSettings, ...options.settings };
    this.parts = parts ?? this.realParts();
    this.engine = this.parts.engine({
      onReady: (device, jobKinds) => this.onEngineReady(device, jobKinds),
      onMessage: (message) => this.onEngine(message),
      onExit: (exit) => this.onEngineExit(exit),
    });
    this.link = new ServerLink({
      client: this.parts.client,
      membership: this.parts.membership,
      settings: this.settings,
      clock,
      ...(timers === undefined ? {} : { timers }),
      ...(random === undefined ? {} : { random }),
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
    this.identity = await this.parts.open();
    await this.parts.membership.open(this.identity);
    this.engine.start();
  }

  /** Graceful: a running attempt writes a checkpoint and is handed back, so that another worker goes on at once. */
  async stop(): Promise<void> {
    this.stopping = true;
    const deadline = this.options.clock.monotonic() + this.settings.shutdownMs;
    this.sendCredit();
    if (this.link.isOpen) this.attempt?.stop('shutdown', Math.ceil((this.settings.shutdownMs * 2) / 3));
    while (this.attempt !== null && this.link.isOpen && this.options.clock.monotonic() < deadline) await sleep(POLL_MS, undefined, this.options.timers);
    await this.kill();
  }

  /** At once: whatever runs is left to its lease. */
  async kill(): Promise<void> {
    this.stopping = true;
    if (this.linkStarted) await this.link.close();
    await this.engine.stop();
    this.parts.client.close();
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
        cache: this.parts.cache,
        transfer: this.parts.transfer,
        folder: this.parts.folderOf(ref.attemptId),
        clock: this.options.clock,
        ...(this.options.timers === undefined ? {} : { timers: this.options.timers }),
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
      slots: 1,
    };
  }

  private running(): fleet.RunningAttempt[] {
    return this.attempt === null || this.attempt.isOver ? [] : [this.attempt.running()];
  }

  /** The device's own figure is the engine's at start; main memory can be read at any time. */
  private memoryBytesFree(): number {
    return this.device?.kind === 'gpu' ? this.device.memoryBytesFree : this.parts.mainMemoryBytesFree();
  }

  private realParts(): AgentParts {
    const { options, settings } = this;
    const { logger, workerDir } = options;
    const attemptsDir = join(workerDir, 'attempts');
    const cache = new ArtifactCache(join(workerDir, 'artifacts'), options.artifactCacheBytes);
    const client = new fleet.FleetClient(options.controlPlane, options.channel.credentials, options.channel.options);
    const membership = new Membership({ ...options, client });
    return {
      client,
      membership,
      cache,
      transfer: new ArtifactTransfer({ client, metadata: membership.metadata, chunkBytes: () => this.chunkBytes, backoff: settings.transfer, logger }),
      engine: (callbacks) => new EngineProcess({ ...options.engine, restart: settings.engineRestart, readyMs: settings.engineReadyMs, logger, ...callbacks }),
      open: async () => {
        // Attempts of an earlier life are over: their boot is.
        await rm(attemptsDir, { recursive: true, force: true });
        await mkdir(attemptsDir, { recursive: true });
        await cache.open();
        return loadIdentity(workerDir);
      },
      folderOf: (attemptId) => attemptFolder(join(attemptsDir, attemptId)),
      mainMemoryBytesFree: freemem,
    };
  }
}

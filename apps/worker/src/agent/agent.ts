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
import { EngineRuns } from './engine-runs';
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
  /** Attempts at once, of one base model; default: 1. */
  readonly slots?: number;
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
  readonly attemptIds: readonly string[];
}

const PROTOCOL_VERSION = 2;
/** From this on a control plane knows of slots. */
const SLOTS_PROTOCOL_VERSION = 2;
const DEFAULT_CHUNK_BYTES = 256 * 1024;
const POLL_MS = 20;

/** Joins the three parts of a worker: the session with the control plane, the engine process, and the attempts that are under way. */
export class Agent {
  private readonly settings: AgentSettings;
  private readonly parts: AgentParts;
  private readonly engine: Engine;
  private readonly runs: EngineRuns;
  private readonly link: ServerLink;
  private identity: WorkerIdentity | null = null;
  private device: DeviceReport | null = null;
  private jobKinds: readonly string[] = [];
  private modelInMemory: string | null = null;
  private modelsOnDisk: readonly string[] = [];
  /** By id; until their end is acknowledged. */
  private readonly attempts = new Map<string, Attempt>();
  private isServerOfSlots = false;
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
    this.runs = new EngineRuns({
      ...{ engine: this.engine, settings: this.settings, clock, timers, logger },
      onKill: () => this.sendCredit(),
      onUnanswered: (runId) => this.attempts.get(runId)?.onUnanswered(),
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
      isUrgent: () => this.attempts.size > 0,
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

  /** Graceful: running attempts write a checkpoint and are handed back, so that other workers go on at once. */
  async stop(): Promise<void> {
    this.stopping = true;
    const deadline = this.options.clock.monotonic() + this.settings.shutdownMs;
    this.sendCredit();
    if (this.link.isOpen) for (const attempt of this.attempts.values()) attempt.stop('shutdown', Math.ceil((this.settings.shutdownMs * 2) / 3));
    while (this.attempts.size > 0 && this.link.isOpen && this.options.clock.monotonic() < deadline) await sleep(POLL_MS, undefined, this.options.timers);
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
    return { workerId: this.identity?.workerId ?? null, connected: this.link.isOpen, engineReady: this.engine.isReady, attemptIds: [...this.attempts.keys()] };
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
    const { runId } = message;
    this.runs.heard(runId);
    this.attempts.get(runId)?.onEngine(message);
    if (message.type === 'model') {
      this.modelInMemory = message.inMemory;
      this.modelsOnDisk = message.onDisk;
      this.sendCredit();
    }
    if (message.type === 'succeeded' || message.type === 'failed' || message.type === 'stopped') {
      // Last: if all else in the engine hangs, it ends here.
      this.runs.answered(runId);
      this.sendCredit();
    }
  }

  private onEngineExit(exit: EngineExit): void {
    this.modelInMemory = null;
    const end = this.runs.exited(exit);
    // Said before the ends: jobs that go back into the queue are not to be offered to this worker yet.
    this.sendCredit();
    for (const attempt of [...this.attempts.values()]) attempt.onEngineExit(end);
  }

  private onWelcome(welcome: fleet.Welcome): void {
    this.options.logger.info({ sessionId: welcome.sessionId, running: this.running().length }, 'connected to the control plane');
    if (welcome.artifactChunkBytes > 0) this.chunkBytes = welcome.artifactChunkBytes;
    this.isServerOfSlots = welcome.protocolVersion >= SLOTS_PROTOCOL_VERSION;
    for (const attempt of this.attempts.values()) attempt.rewind();
    this.sendCredit();
    this.flush();
    this.announceReady();
  }

  private onServer(message: ServerPayload): void {
    switch (message.$case) {
      case 'assign':
        return this.onAssign(message.value);
      case 'lease':
        return this.find(message.value.attempt)?.renewLease(message.value.validForMs);
      case 'stop':
        return this.onStop(message.value);
      case 'eventAck':
        this.find(message.value.attempt)?.onEventAck(message.value);
        return this.flush();
      case 'finishedAck':
        return this.closeAttempt(this.find(message.value.attempt));
      case 'beat':
      case 'welcome':
      case 'goodbye':
        return;
    }
  }

  private onAssign(assign: fleet.Assign): void {
    const ref = assign.attempt;
    if (ref === undefined) return;
    const again = this.find(ref) !== undefined;
    const refusal = again ? null : this.refusal(assign);
    this.link.send({ $case: 'assignAck', value: { attempt: ref, accepted: refusal === null, reason: refusal ?? '' } });
    if (refusal !== null) return this.sendCredit();
    if (again) return;
    this.options.logger.info({ ...ref, kind: assign.kind, resumeStep: assign.resume?.step ?? null }, 'attempt assigned');
    const attempt = new Attempt(
      { ...assign, attempt: ref },
      {
        settings: this.settings,
        cache: this.parts.cache,
        transfer: this.parts.transfer,
        folder: this.parts.folderOf(ref.attemptId),
        clock: this.options.clock,
        ...(this.options.timers === undefined ? {} : { timers: this.options.timers }),
        logger: this.options.logger,
        engine: this.runs,
        onOutput: () => this.flush(),
      },
    );
    this.attempts.set(ref.attemptId, attempt);
    void attempt.start();
    this.sendCredit();
  }

  private refusal(assign: fleet.Assign): string | null {
    if (this.stopping) return 'the worker is shutting down';
    if (this.occupied.length >= this.slots) return `the worker takes ${this.slots} at once and has ${this.occupied.join(', ')}`;
    if (this.leftovers.length > 0) return `the engine has not let go of ${this.leftovers.join(', ')} yet`;
    if (!this.engine.isReady) return 'the engine is not ready';
    if (!this.jobKinds.includes(assign.kind)) return `this worker cannot run ${assign.kind} jobs`;
    return null;
  }

  private onStop(stop: fleet.Stop): void {
    const ref = stop.attempt;
    if (ref === undefined) return;
    const reason = parseStopReason(stop.reason);
    const attempt = this.find(ref);
    if (attempt !== undefined) return attempt.stop(reason, stop.graceMs);
    // Nothing of it is here: say so, so that the record does not wait for it.
    this.link.send({ $case: 'finished', value: { attempt: ref, lastSeq: 0, outcome: { $case: 'stopped', value: { reason } } } });
  }

  private find(ref: fleet.AttemptRef | undefined): Attempt | undefined {
    const attempt = this.attempts.get(ref?.attemptId ?? '');
    return attempt?.is(ref) === true ? attempt : undefined;
  }

  /** Sends what the attempts have to say, as far as the window of each goes. */
  private flush(): void {
    for (const attempt of this.attempts.values()) {
      for (let message = this.nextOf(attempt); message !== null; message = this.nextOf(attempt)) this.link.send(message);
    }
  }

  private nextOf(attempt: Attempt): WorkerPayload | null {
    return this.link.isOpen ? attempt.nextMessage() : null;
  }

  private closeAttempt(attempt: Attempt | undefined): void {
    attempt
      ?.close()
      .catch((error: unknown) => this.options.logger.warn({ err: error, ...attempt.ref }, 'the attempt left files behind'))
      .finally(() => {
        if (this.attempts.get(attempt.ref.attemptId) === attempt) this.attempts.delete(attempt.ref.attemptId);
        this.sendCredit();
      });
  }

  private get slots(): number {
    return this.options.slots ?? 1;
  }

  /** Attempts, and what the engine still has of ones that are over. */
  private get occupied(): readonly string[] {
    return [...new Set([...this.attempts.keys(), ...this.runs.ids])];
  }

  /** What the engine still has of attempts that the record does not count any more. */
  private get leftovers(): readonly string[] {
    return this.runs.ids.filter((id) => this.attempts.get(id)?.isLetGo !== false);
  }

  private get freeSlots(): number {
    return this.leftovers.length > 0 ? 0 : Math.max(0, this.slots - this.occupied.length);
  }

  private sendCredit(): void {
    const free = this.stopping || !this.engine.isReady ? 0 : this.freeSlots;
    const jobs = this.isServerOfSlots ? free : Math.min(free, this.occupied.length === 0 ? 1 : 0);
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
      slots: this.slots,
    };
  }

  private running(): fleet.RunningAttempt[] {
    return [...this.attempts.values()].filter(({ isOver }) => !isOver).map((attempt) => attempt.running());
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

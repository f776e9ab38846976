import type { ChannelCredentials, Metadata, ServiceError } from '@grpc/grpc-js';
import type { ArtifactRef, fleet } from '@tunefleet/contracts';
import { silentLogger, sleep, TunefleetError } from '@tunefleet/foundation';
import type { FleetAccess } from '@tunefleet/ports';
import { Agent, type AgentParts } from '../../worker/src/agent/agent';
import { Membership } from '../../worker/src/agent/membership';
import type { DeviceReport } from '../../worker/src/engine-protocol';
import type { SimulatedBlobs } from './blobs';
import type { FaultCounts } from './fault-counts';
import type { Network } from './network';
import type { Random } from './random';
import { SimulatedEngine } from './simulated-engine';
import { MachineTime, type VirtualTime } from './virtual-time';

export interface WorkerDeps {
  /** Of its machine; as a worker it has this name, and an id for each time it has joined as a new one. */
  readonly name: string;
  readonly joinToken: string;
  readonly time: VirtualTime;
  readonly random: Random;
  readonly network: Network;
  readonly access: Pick<FleetAccess, 'isHeldBy' | 'noteUpload'>;
  readonly blobs: SimulatedBlobs;
  readonly labels: Readonly<Record<string, string>>;
  readonly memoryBytes: number;
  readonly slots: number;
  readonly skew: { readonly offsetMs: number; readonly rate: number };
  readonly newHash: () => string;
  readonly onStep: (attemptId: string, workerId: string) => void;
  readonly onShared: (models: ReadonlyMap<string, string>, workerId: string) => void;
  readonly onHang: (attemptId: string) => void;
  readonly counts: FaultCounts;
}

const LEASE_MS = 30_000;

/** What the worker's folder holds. */
interface Folder {
  readonly workerId: string;
  readonly joinToken: string;
  secret: string | null;
}

/** The production agent on a simulated machine. It can be killed and started again, as another boot of the same worker. */
export class SimulatedWorker {
  private folder: Folder;
  private joins = 0;
  private agent: Agent | null = null;
  private machine: MachineTime | null = null;
  private engine: SimulatedEngine | null = null;
  private readonly resumeSteps = new Map<string, number>();
  private boots = 0;

  constructor(private readonly deps: WorkerDeps) {
    this.folder = this.emptyFolder(deps.joinToken);
  }

  get id(): string {
    return this.folder.workerId;
  }

  get isUp(): boolean {
    return this.agent !== null;
  }

  boot(): void {
    if (this.agent !== null) return;
    const { time, skew, random, name, counts } = this.deps;
    const machine = new MachineTime(time, skew);
    if (this.boots === 0 && Math.abs(skew.offsetMs) > LEASE_MS) counts.add('worker clock off by more than a lease');
    const bootId = `boot-${this.id}-${++this.boots}`;
    this.machine = machine;
    const agent = new Agent(
      {
        ...{ controlPlane: 'simulated', channel: { credentials: null as unknown as ChannelCredentials, options: {} }, joinToken: this.folder.joinToken, workerDir: '/simulated', artifactCacheBytes: 0 },
        ...{ engine: { file: '', env: {} }, name, labels: this.deps.labels, slots: this.deps.slots, version: '1', clock: machine, timers: machine, random: random.next, logger: silentLogger },
        onReady: () => undefined,
        // The process ends, and whatever runs it starts it again.
        onRefused: () => {
          this.kill();
          time.after(5_000, () => this.boot());
        },
      },
      this.parts(machine, bootId),
    );
    this.agent = agent;
    void agent.start();
  }

  /** From one moment to the next. */
  kill(): void {
    this.machine?.kill();
    this.agent = null;
    this.engine = null;
    for (const connection of this.deps.network.of(this.id)) {
      connection.removeAllListeners();
      connection.on('error', () => undefined);
      if (this.deps.random.chance(0.7)) connection.cut();
      else connection.swallow();
    }
  }

  /** The machine gets an empty folder and another token: it will join as a new worker. */
  makeNew(joinToken: string): void {
    this.kill();
    this.folder = this.emptyFolder(joinToken);
    this.boot();
  }

  /** As a service manager stops it; the machine is off afterwards. */
  async shutDown(): Promise<void> {
    const { agent } = this;
    if (agent === null) return;
    await agent.stop();
    if (this.agent === agent) this.kill();
  }

  crashEngine(): boolean {
    return this.engine?.crash() ?? false;
  }

  hangEngine(): boolean {
    return this.engine?.hang() ?? false;
  }

  hangOneRun(): boolean {
    return this.engine?.hangOne() ?? false;
  }

  killHungEngine(): void {
    if (this.engine?.hangs === true) this.engine.crash();
  }

  private emptyFolder(joinToken: string): Folder {
    const { name } = this.deps;
    return { workerId: this.joins++ === 0 ? name : `${name}-${this.joins}`, joinToken, secret: null };
  }

  private parts(machine: MachineTime, bootId: string): AgentParts {
    const { random, network, newHash, onStep, onHang, onShared, counts } = this.deps;
    const { folder } = this;
    const membership = this.membership(machine, folder);
    return {
      client: { session: ((metadata: Metadata) => network.connect(folder.workerId, metadata)) as unknown as fleet.FleetClient['session'], close: () => undefined },
      membership,
      cache: {
        ensure: async (artifact, fetch, signal) => {
          await fetch(artifact, artifact.sha256, signal);
          return artifact.sha256;
        },
        adopt: async () => undefined,
        release: () => undefined,
      },
      transfer: {
        upload: (attempt, artifact, _file, signal) => this.transfer(machine, attempt, signal, () => this.store(folder, attempt, artifact)),
        download: (attempt, _artifact, _file, signal) => this.transfer(machine, attempt, signal, async () => undefined),
      },
      engine: (callbacks) => {
        this.engine = new SimulatedEngine(
          {
            ...{ timers: machine, random, device: deviceOf(this.deps.memoryBytes), newHash, resumeStepOf: (attemptId) => this.resumeSteps.get(attemptId) ?? 0, counts, onHang },
            onStep: (attemptId) => machine.isDead || onStep(attemptId, folder.workerId),
            onShared: (models) => machine.isDead || onShared(models, folder.workerId),
          },
          callbacks,
        );
        return this.engine;
      },
      open: async () => ({ workerId: folder.workerId, bootId }),
      folderOf: (attemptId) => ({
        create: async () => 'output',
        createResume: async () => 'resume',
        link: async (_file, as) => void this.resumeSteps.set(attemptId, Number(/-(\d+)\.bin$/.exec(as)?.[1])),
        removeCheckpoint: async () => undefined,
        remove: async () => undefined,
      }),
      mainMemoryBytesFree: () => this.deps.memoryBytes,
    };
  }

  /** The production membership, with a folder and a call of the simulation. */
  private membership(machine: MachineTime, folder: Folder): Membership {
    const { network, name, labels, random } = this.deps;
    const join = (request: fleet.JoinRequest, metadata: Metadata, _options: unknown, done: (error: ServiceError | null) => void): { cancel(): void } => {
      network.join(request, metadata).then(
        () => machine.isDead || done(null),
        (error: ServiceError) => machine.isDead || done(error),
      );
      return { cancel: () => undefined };
    };
    return new Membership({
      ...{ client: { join: join as unknown as fleet.FleetClient['join'] }, joinToken: folder.joinToken, workerDir: '', name, labels, logger: silentLogger },
      load: async () => {
        const isNew = folder.secret === null;
        folder.secret ??= Buffer.from(Array.from({ length: 32 }, () => random.int(0, 255))).toString('base64url');
        return { secret: folder.secret, isNew };
      },
    });
  }

  private async store({ workerId }: Folder, attempt: fleet.AttemptRef, artifact: ArtifactRef): Promise<void> {
    const { blobs, random, access, counts } = this.deps;
    if (random.chance(blobs.full)) {
      counts.add('upload met a full disk');
      throw new Error('no space left on device');
    }
    if (!(await access.noteUpload(workerId, attempt, artifact))) throw new TunefleetError('lease_lost', 'the attempt is over');
    blobs.receive(artifact);
  }

  /** As the production transfer: cut ones are tried again, until the attempt is over or given up. */
  private async transfer(machine: MachineTime, attempt: fleet.AttemptRef, signal: AbortSignal, move: () => Promise<void>): Promise<void> {
    const { random, access, network, counts } = this.deps;
    const { workerId } = this.folder;
    for (;;) {
      await sleep(random.between(10, 1_500) + network.delayMs(), signal, machine);
      if (signal.aborted) throw new TunefleetError('cancelled', 'abandoned');
      if (network.isIsolated(workerId)) continue;
      if (!(await access.isHeldBy(workerId, attempt))) throw new TunefleetError('lease_lost', 'the attempt is over');
      if (random.chance(0.98)) return move();
      counts.add('transfer cut');
    }
  }
}

function deviceOf(memoryBytesTotal: number): DeviceReport {
  return { kind: 'gpu', name: 'simulated', backend: 'none', backendVersion: '1', memoryBytesTotal, memoryBytesFree: memoryBytesTotal, bf16: true, threads: 1 };
}

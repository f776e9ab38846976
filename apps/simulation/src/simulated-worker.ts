import { Metadata, type ChannelCredentials } from '@grpc/grpc-js';
import type { ArtifactRef, fleet } from '@tunefleet/contracts';
import { silentLogger, sleep, TunefleetError } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';
import { Agent, type AgentParts } from '../../worker/src/agent/agent';
import type { DeviceReport } from '../../worker/src/engine-protocol';
import type { SimulatedBlobs } from './blobs';
import type { Network } from './network';
import type { Random } from './random';
import { SimulatedEngine } from './simulated-engine';
import { MachineTime, type VirtualTime } from './virtual-time';

export interface WorkerDeps {
  readonly id: string;
  readonly time: VirtualTime;
  readonly random: Random;
  readonly network: Network;
  readonly store: Pick<FleetStore, 'isLive'>;
  readonly blobs: SimulatedBlobs;
  readonly labels: Readonly<Record<string, string>>;
  readonly memoryBytes: number;
  readonly skew: { readonly offsetMs: number; readonly rate: number };
  readonly newHash: () => string;
  readonly onStep: (attemptId: string, workerId: string) => void;
}

/** The production agent on a simulated machine. It can be killed and started again, as another boot of the same worker. */
export class SimulatedWorker {
  readonly id: string;
  private agent: Agent | null = null;
  private machine: MachineTime | null = null;
  private engine: SimulatedEngine | null = null;
  private readonly resumeSteps = new Map<string, number>();
  private boots = 0;

  constructor(private readonly deps: WorkerDeps) {
    this.id = deps.id;
  }

  get isUp(): boolean {
    return this.agent !== null;
  }

  boot(): void {
    if (this.agent !== null) return;
    const { time, skew, random } = this.deps;
    const machine = new MachineTime(time, skew);
    const bootId = `boot-${this.id}-${++this.boots}`;
    this.machine = machine;
    const agent = new Agent(
      {
        ...{ controlPlane: 'simulated', channel: { credentials: null as unknown as ChannelCredentials, options: {} }, joinToken: null, workerDir: '/simulated', artifactCacheBytes: 0 },
        ...{ engine: { file: '', env: {} }, name: this.id, labels: this.deps.labels, version: '1', clock: machine, timers: machine, random: random.next, logger: silentLogger },
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

  /** As a service manager stops it; the machine is off afterwards. */
  async shutDown(): Promise<void> {
    const { agent } = this;
    if (agent === null) return;
    await agent.stop();
    if (this.agent === agent) this.kill();
  }

  crashEngine(): void {
    this.engine?.crash();
  }

  hangEngine(): boolean {
    return this.engine?.hang() ?? false;
  }

  private parts(machine: MachineTime, bootId: string): AgentParts {
    const { random, network, newHash, onStep } = this.deps;
    return {
      client: { session: () => network.connect(this.id) as unknown as ReturnType<fleet.FleetClient['session']>, close: () => undefined },
      membership: { metadata: new Metadata(), needsJoin: false, open: async () => undefined, join: async () => ({ how: 'joined' as const }), forget: () => undefined },
      cache: {
        ensure: async (artifact, fetch, signal) => {
          await fetch(artifact, artifact.sha256, signal);
          return artifact.sha256;
        },
        adopt: async () => undefined,
        release: () => undefined,
      },
      transfer: {
        upload: (attempt, artifact, _file, signal) => this.transfer(machine, attempt, signal, () => this.store(attempt, artifact)),
        download: (attempt, _artifact, _file, signal) => this.transfer(machine, attempt, signal, () => undefined),
      },
      engine: (callbacks) => {
        this.engine = new SimulatedEngine({ timers: machine, random, device: deviceOf(this.deps.memoryBytes), newHash, resumeStepOf: (attemptId) => this.resumeSteps.get(attemptId) ?? 0, onStep: (attemptId) => machine.isDead || onStep(attemptId, this.id) }, callbacks);
        return this.engine;
      },
      open: async () => ({ workerId: this.id, bootId }),
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

  private store(attempt: fleet.AttemptRef, artifact: ArtifactRef): void {
    const { blobs, random } = this.deps;
    if (random.chance(blobs.full)) throw new Error('no space left on device');
    blobs.receive(attempt.jobId, artifact);
  }

  /** As the production transfer: cut ones are tried again, until the attempt is over or given up. */
  private async transfer(machine: MachineTime, attempt: fleet.AttemptRef, signal: AbortSignal, move: () => void): Promise<void> {
    const { random, store, network } = this.deps;
    for (;;) {
      await sleep(random.between(10, 1_500) + network.delayMs(), signal, machine);
      if (signal.aborted) throw new TunefleetError('cancelled', 'abandoned');
      if (network.isIsolated(this.id)) continue;
      if (!(await store.isLive(attempt))) throw new TunefleetError('lease_lost', 'the attempt is over');
      if (random.chance(0.98)) return move();
    }
  }
}

function deviceOf(memoryBytesTotal: number): DeviceReport {
  return { kind: 'gpu', name: 'simulated', backend: 'none', backendVersion: '1', memoryBytesTotal, memoryBytesFree: memoryBytesTotal, bf16: true, threads: 1 };
}

import type { SimulatedBlobs } from './blobs';
import type { Invariants } from './invariants';
import type { Journal } from './journal';
import type { Network } from './network';
import type { Random } from './random';
import type { Replica } from './replica';
import type { DatabaseWeather } from './replica-store';
import type { SimulatedWorker } from './simulated-worker';
import type { VirtualTime } from './virtual-time';

export interface FaultsDeps {
  readonly time: VirtualTime;
  readonly random: Random;
  readonly journal: Journal;
  readonly network: Network;
  readonly workers: readonly SimulatedWorker[];
  readonly replicas: () => readonly Replica[];
  readonly startReplica: (name: string) => void;
  readonly weather: DatabaseWeather;
  readonly blobs: SimulatedBlobs;
  readonly invariants: Invariants;
}

/** Breaks things, one at a time, and mends what does not mend itself. */
export class Faults {
  readonly counts = new Map<string, number>();

  constructor(private readonly deps: FaultsDeps) {}

  strike(): void {
    const { random } = this.deps;
    const faults: readonly (readonly [string, number, (worker: SimulatedWorker) => unknown])[] = [
      ['worker killed', 3, (worker) => this.killWorker(worker)],
      ['worker shut down', 2, (worker) => this.shutDown(worker)],
      ['stream cut', 4, (worker) => this.deps.network.of(worker.id).forEach((connection) => connection.cut())],
      ['stream swallows', 3, (worker) => this.deps.network.of(worker.id).forEach((connection) => connection.swallow())],
      ['worker isolated', 3, (worker) => this.deps.network.isolate(worker.id, random.between(10_000, 120_000))],
      ['engine crashed', 3, (worker) => worker.crashEngine()],
      ['engine hangs', 2, (worker) => worker.hangEngine()],
      ['disk full', 1, () => this.fillDisk()],
      ['replica killed', 1.5, () => this.killReplica()],
      ['database fails', 1, () => this.failDatabase()],
    ];
    let left = random.next() * faults.reduce((sum, [, weight]) => sum + weight, 0);
    const [name, , strike] = faults.find(([, weight]) => (left -= weight) < 0) ?? (faults[0] as (typeof faults)[number]);
    const worker = random.pick(this.deps.workers);
    this.deps.journal.note(() => `fault: ${name} (${worker.id})`);
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    strike(worker);
  }

  private killWorker(worker: SimulatedWorker): void {
    const { time, random } = this.deps;
    worker.kill();
    time.after(random.exponential(30_000), () => worker.boot());
  }

  private shutDown(worker: SimulatedWorker): void {
    const { time, random } = this.deps;
    void worker.shutDown().then(() => time.after(random.exponential(20_000), () => worker.boot()));
  }

  private fillDisk(): void {
    const { time, random, blobs } = this.deps;
    blobs.full = random.between(0.2, 1);
    time.after(random.between(5_000, 60_000), () => (blobs.full = 0));
  }

  private killReplica(): void {
    const { time, random, replicas, startReplica } = this.deps;
    const up = replicas();
    if (up.length === 0) return;
    const victim = random.pick(up);
    victim.kill();
    time.after(random.between(500, 15_000), () => startReplica(victim.name));
  }

  private failDatabase(): void {
    const { time, random, weather, invariants } = this.deps;
    weather.failing = random.between(0.05, 1);
    time.after(random.between(1_000, 10_000), () => {
      weather.failing = 0;
      // Loops that met errors wait up to half a minute before they try again.
      time.after(30_000, () => invariants.excuse());
      invariants.excuse();
    });
  }
}

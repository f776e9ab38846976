import type { SimulatedBlobs } from './blobs';
import type { FaultCounts, FaultKind } from './fault-counts';
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
  readonly counts: FaultCounts;
  readonly network: Network;
  readonly workers: readonly SimulatedWorker[];
  readonly replicas: () => readonly Replica[];
  readonly startReplica: (name: string) => void;
  readonly revoke: (worker: SimulatedWorker) => Promise<void>;
  readonly weather: DatabaseWeather;
  readonly blobs: SimulatedBlobs;
  readonly invariants: Invariants;
}

type Strike = readonly [FaultKind | 'disk full' | 'database fails', weight: number, strike: () => boolean];

/** Breaks things, one at a time, and mends what does not mend itself. */
export class Faults {
  private allAwayUntilMs = 0;

  constructor(private readonly deps: FaultsDeps) {}

  /** Of one machine of the fleet. */
  strikeWorker(): void {
    const { random, network, workers } = this.deps;
    const worker = random.pick(workers);
    this.strike(worker.id, [
      ['worker killed', 3, () => this.killWorker(worker)],
      ['worker shut down', 2, () => this.shutDown(worker)],
      ['worker isolated', 3, () => network.isolate(worker.id, random.between(10_000, 120_000))],
      ['worker revoked', 0.7, () => this.revoke(worker)],
      ['stream cut', 4, () => network.of(worker.id).map((connection) => connection.cut()).length > 0],
      ['stream swallows', 3, () => network.of(worker.id).map((connection) => connection.swallow()).length > 0],
      ['engine crashed', 3, () => worker.crashEngine()],
      ['engine hangs', 2, () => worker.hangEngine()],
      ['run hangs beside others', 1, () => [worker, ...workers].some((each) => each.hangOneRun())],
    ]);
  }

  /** Of what all of them need. */
  strikeCentre(): void {
    this.strike('', [
      ['disk full', 1, () => this.fillDisk()],
      ['replica killed', 1.5, () => this.killReplica()],
      ['replica restarted', 1, () => this.restartReplica()],
      ['all replicas away', 0.5, () => this.killReplicas()],
      ['database fails', 1, () => this.failDatabase()],
    ]);
  }

  private strike(whom: string, strikes: readonly Strike[]): void {
    const { random, journal, counts } = this.deps;
    let left = random.next() * strikes.reduce((sum, [, weight]) => sum + weight, 0);
    const [name, , strike] = strikes.find(([, weight]) => (left -= weight) < 0) ?? (strikes[0] as Strike);
    journal.note(() => `fault: ${name} ${whom}`.trimEnd());
    const had = strike();
    // What a full disk and a failing database do is counted call by call.
    if (had && name !== 'disk full' && name !== 'database fails') counts.add(name);
  }

  private killWorker(worker: SimulatedWorker): boolean {
    const { time, random } = this.deps;
    const wasUp = worker.isUp;
    worker.kill();
    time.after(random.exponential(30_000), () => worker.boot());
    return wasUp;
  }

  private shutDown(worker: SimulatedWorker): boolean {
    const { time, random } = this.deps;
    if (!worker.isUp) return false;
    void worker.shutDown().then(() => time.after(random.exponential(20_000), () => worker.boot()));
    return true;
  }

  /** An operator bars it; later its machine comes back as a new worker. */
  private revoke(worker: SimulatedWorker): boolean {
    if (!worker.isUp) return false;
    void this.deps.revoke(worker);
    return true;
  }

  private fillDisk(): boolean {
    const { time, random, blobs } = this.deps;
    blobs.full = random.between(0.2, 1);
    time.after(random.between(5_000, 60_000), () => (blobs.full = 0));
    return true;
  }

  private killReplica(): boolean {
    const { random, replicas } = this.deps;
    const up = replicas();
    if (up.length === 0) return false;
    this.killAndRestart(random.pick(up));
    return true;
  }

  /** For a moment or for several leases. */
  private killReplicas(): boolean {
    const { time, random, replicas } = this.deps;
    const up = replicas();
    if (up.length === 0) return false;
    this.allAwayUntilMs = time.now() + random.between(5_000, 150_000);
    for (const replica of up) this.killAndRestart(replica);
    return true;
  }

  private killAndRestart(replica: Replica): void {
    replica.kill();
    this.startLater(replica.name);
  }

  private startLater(name: string): void {
    const { time, random, startReplica } = this.deps;
    const start = (): void => {
      const awayMs = this.allAwayUntilMs - time.now();
      if (awayMs > 0) time.after(awayMs + random.between(0, 5_000), start);
      else startReplica(name);
    };
    time.after(random.between(500, 15_000), start);
  }

  /** As an upgrade does it. */
  private restartReplica(): boolean {
    const { random, replicas } = this.deps;
    const up = replicas().filter(({ isStopping }) => !isStopping);
    if (up.length === 0) return false;
    const one = random.pick(up);
    void one.shutDown().then((isOurs) => isOurs && this.startLater(one.name));
    return true;
  }

  private failDatabase(): boolean {
    const { time, random, weather, invariants } = this.deps;
    weather.failing = random.between(0.05, 1);
    time.after(random.between(1_000, 10_000), () => {
      weather.failing = 0;
      // Loops that met errors wait up to half a minute before they try again.
      time.after(30_000, () => invariants.excuse());
      invariants.excuse();
    });
    return true;
  }
}

import type { IdKind } from '@tunefleet/foundation';
import { openStoreMemory, type Change, type MemoryStore } from '@tunefleet/testing/store-memory';
import { hashSecret } from '../../control-plane/src/fleet/admission';
import { SimulatedBlobs } from './blobs';
import { DeliveryOrder, FaultCounts } from './fault-counts';
import { Faults } from './faults';
import { Invariants } from './invariants';
import { Journal } from './journal';
import { Network } from './network';
import { Random } from './random';
import { Replica } from './replica';
import type { DatabaseWeather } from './replica-store';
import type { Scenario } from './scenario';
import { SimulatedWorker } from './simulated-worker';
import { Users } from './users';
import { MachineTime, VirtualTime } from './virtual-time';

export const START_MS = Date.UTC(2026, 0, 15);
const REPAIR_EVERY_MS = 30_000;
/** Between the revocation of a worker and its machine's return as a new one. */
const REVOKED_MS = 60_000;
const GIBIBYTE = 1024 ** 3;
const MEMORY = [16, 24, 40, 80].map((size) => size * GIBIBYTE);

export interface Outcome {
  readonly seed: number;
  readonly virtualMs: number;
  readonly events: number;
  readonly jobs: Readonly<Record<string, number>>;
  readonly attempts: Readonly<Record<string, number>>;
  /** Attempts that came to a worker that had others. */
  readonly shared: number;
  readonly faults: Readonly<Record<string, number>>;
  /** By team: for how long attempts held workers until users and faults stopped. */
  readonly heldSeconds: Readonly<Record<string, number>>;
  /** Two runs of one seed agree in it. */
  readonly fingerprint: number;
}

/** A rule was broken, or the code threw; with all it takes to see it again. */
export class SimulationFailure extends Error {
  override readonly name = 'SimulationFailure';
}

/** The world of one scenario, from its first event to the last job's end. */
export class Simulation {
  readonly time = new VirtualTime(START_MS);
  readonly store: MemoryStore;
  private readonly journal: Journal;
  private readonly invariants: Invariants;
  private readonly network: Network;
  private readonly blobs = new SimulatedBlobs();
  private readonly weather: DatabaseWeather = { failing: 0 };
  private readonly users: Users;
  private readonly faults: Faults;
  private readonly workers: SimulatedWorker[];
  private readonly replicas = new Map<string, Replica>();
  private readonly faultCounts = new FaultCounts();
  private readonly operators: Random;
  private readonly counters = new Map<string, number>();
  private fingerprint = 0;
  private replicaLives = 0;
  private events = 0;
  private isActive = true;
  private heldSeconds: Readonly<Record<string, number>> = {};

  /** @param sabotage breaks the store on purpose, to see that it is noticed */
  constructor(
    private readonly scenario: Scenario,
    sabotage?: (store: MemoryStore) => void,
  ) {
    const { seed } = scenario;
    const random = (stream: number): Random => new Random(seed, stream);
    this.journal = new Journal(() => this.time.now());
    this.invariants = new Invariants(() => this.time.now(), () => this.store.tables);
    const wakes = random(2);
    const wakeOrder = new DeliveryOrder(() => this.faultCounts.add('wake-up overtaken'));
    this.operators = random(7);
    this.store = openStoreMemory({
      clock: this.time,
      newId: (kind) => this.newId(kind),
      onChange: (change) => this.onChange(change),
      deliver: (run) => {
        if (this.isActive && wakes.chance(scenario.wakes.lost)) return this.faultCounts.add('wake-up lost');
        const delivered = wakeOrder.send();
        for (let n = wakes.chance(scenario.wakes.twice) ? 2 : 1; n > 0; n--) {
          if (n === 2) this.faultCounts.add('wake-up doubled');
          this.time.after(wakes.exponential(5), () => {
            delivered();
            run();
          });
        }
      },
    });
    sabotage?.(this.store);
    this.network = new Network(this.time, random(3), scenario, this.faultCounts, () => [...this.replicas.values()]);
    const { time, journal, network, blobs, weather, invariants, faultCounts: counts } = this;
    this.users = new Users({ scenario, counts, time, random: random(4), journal, tables: this.store.tables, memoryBytes: MEMORY.slice(0, 2), api: () => this.anyReplica() });
    this.workers = Array.from({ length: scenario.workers }, (_, index) => this.makeWorker(index));
    this.faults = new Faults({
      ...{ time, random: random(5), journal, counts, network, workers: this.workers, weather, blobs, invariants },
      replicas: () => this.liveReplicas(),
      startReplica: (name) => this.startReplica(name),
      revoke: (worker) => this.revoke(worker),
    });
  }

  /** @throws SimulationFailure */
  async run(): Promise<Outcome> {
    const { scenario, time } = this;
    const random = new Random(scenario.seed, 6);
    let thrown: unknown = null;
    const onUnhandled = (error: unknown): void => void (thrown ??= error);
    process.on('unhandledRejection', onUnhandled);
    try {
      for (const { name, weight, runningJobs } of scenario.teams) {
        await this.store.records.ensureTeam(name);
        await this.store.records.setTeamQuota(name, { weight, runningJobs, sharesWorkers: scenario.sharing !== null && random.chance(scenario.sharing.teams) });
      }
      await this.createJoinToken(fleetToken, null);
      for (let n = 0; n < scenario.replicas; n++) this.startReplica(`replica-${n}`);
      for (const worker of this.workers) time.after(random.between(0, 20_000), () => worker.boot());
      time.every(1_000, () => this.onSecond());
      this.repeat(random, scenario.jobsPerSecond, () => void this.users.submit());
      this.repeat(random, scenario.userActsPerSecond, () => void this.users.act());
      this.repeat(random, scenario.faultsPerSecond, () => this.faults.strikeWorker());
      this.repeat(random, scenario.outagesPerSecond, () => this.faults.strikeCentre());
      time.every(REPAIR_EVERY_MS, () => void this.users.repair(REPAIR_EVERY_MS));
      while (time.now() < START_MS + scenario.activeMs) await this.step(thrown);
      await this.settle(() => thrown);
      return this.outcome();
    } catch (error) {
      throw this.failure(error);
    } finally {
      process.off('unhandledRejection', onUnhandled);
    }
  }

  private async step(thrown: unknown): Promise<void> {
    this.events++;
    await this.time.step();
    this.invariants.check();
    if (thrown !== null) throw thrown;
  }

  /** No more faults; users take back what blocks; and then every job must end. */
  private async settle(thrown: () => unknown): Promise<void> {
    const { time, scenario } = this;
    this.isActive = false;
    this.heldSeconds = this.held();
    this.weather.failing = 0;
    this.blobs.full = 0;
    this.journal.note(() => 'users and faults have stopped');
    time.after(60_000, () => time.every(60_000, () => void this.users.settle()));
    for (const worker of this.workers) time.after(120_000, () => worker.boot());
    if (scenario.killsHung) time.after(60_000, () => this.workers.forEach((worker) => worker.killHungEngine()));
    const endMs = time.now() + scenario.settleMs;
    const isOver = (): boolean => [...this.store.tables.jobs.values()].every(({ finishedAt }) => finishedAt !== null) && this.store.tables.live.size === 0;
    let lookAtMs = 0;
    while (time.now() < endMs) {
      if (time.now() >= lookAtMs) {
        if (isOver()) break;
        lookAtMs = time.now() + 5_000;
      }
      await this.step(thrown());
    }
    this.invariants.onEnd();
    this.invariants.check();
  }

  private repeat(random: Random, perSecond: number, run: () => void): void {
    if (perSecond <= 0) return;
    this.time.after(random.exponential(1000 / perSecond), () => {
      if (!this.isActive) return;
      run();
      this.repeat(random, perSecond, run);
    });
  }

  private onSecond(): void {
    if (this.liveReplicas().length === 0) this.invariants.nobodyIsUp();
    this.invariants.onSecond();
  }

  private onChange(change: Change): void {
    this.invariants.onChange(change);
    const text = changeText(change);
    if (text === null) return;
    this.journal.note(text);
    // Order matters, and so does the time.
    this.fingerprint = (Math.imul(this.fingerprint, 31) + Math.round(this.time.now() - START_MS) + change.table.length) >>> 0;
  }

  private makeWorker(index: number): SimulatedWorker {
    const { scenario, time, network, store, blobs, faultCounts: counts } = this;
    const random = new Random(scenario.seed, 1_000 + index);
    const { rate, offsetMs } = scenario.skew;
    return new SimulatedWorker({
      ...{ name: `wrk-${String(index).padStart(4, '0')}`, joinToken: shownToken(fleetToken), time, random, network, access: store.access, blobs, counts },
      // Both zones and the largest memory are there, so that every job has a worker.
      labels: { zone: index % 2 === 0 ? 'a' : 'b' },
      memoryBytes: index < 2 ? Math.max(...MEMORY) : index === 2 ? Math.min(...MEMORY) : random.pick(MEMORY),
      slots: scenario.sharing === null ? 1 : random.int(1, scenario.sharing.slotsMax),
      skew: { rate: 1 + random.between(-rate, rate), offsetMs: random.between(-offsetMs, offsetMs) },
      newHash: () => this.count('blob').toString(16).padStart(64, '0'),
      onStep: (attemptId, workerId) => this.invariants.onEngineStep(attemptId, workerId),
      onShared: (models, workerId) => this.invariants.onEngineShared(models, workerId),
      onHang: (attemptId) => this.invariants.onEngineHang(attemptId),
    });
  }

  /** An operator bars the worker; a while later its machine joins as another one, by a token for it alone. */
  private async revoke(worker: SimulatedWorker): Promise<void> {
    this.time.after(this.operators.exponential(REVOKED_MS), () => {
      const token = `${TOKEN_PREFIX}${this.count('join token')}`;
      void this.createJoinToken(token, 1).then(() => worker.makeNew(shownToken(token)));
    });
    // Where the call is lost, nobody was barred, or nobody was told so.
    await this.anyReplica()?.access.revokeWorker(worker.id, 'simulated').catch(() => undefined);
  }

  private async createJoinToken(id: string, maxUses: number | null): Promise<void> {
    await this.store.access.createJoinToken({ id, secretHash: hashSecret(secretOf(id)), note: null, maxUses, expiresInMs: null, scope: { namePattern: 'wrk-*', labels: null } });
  }

  private startReplica(name: string): void {
    const { time, store, weather, blobs, invariants, faultCounts: counts } = this;
    const random = new Random(this.scenario.seed, 10_000_000 + this.replicaLives++);
    const machine = new MachineTime(time, { offsetMs: random.between(-1_000, 1_000), rate: 1 });
    const replica = new Replica({ name, time: machine, random, store, weather, blobs, queue: this.users.queue, invariants, counts });
    this.replicas.set(name, replica);
    this.journal.note(() => `${name} starts`);
    void replica.start();
  }

  private liveReplicas(): Replica[] {
    return [...this.replicas.values()].filter(({ isListening }) => isListening);
  }

  private anyReplica(): Replica | null {
    return this.liveReplicas()[0] ?? null;
  }

  private newId(kind: IdKind): string {
    return `${kind}-${String(this.count(kind)).padStart(9, '0')}`;
  }

  private count(what: string): number {
    const count = (this.counters.get(what) ?? 0) + 1;
    this.counters.set(what, count);
    return count;
  }

  private held(): Record<string, number> {
    const { attempts, jobs, teams } = this.store.tables;
    const seconds: Record<string, number> = {};
    for (const { jobId, assignedAt, finishedAt } of attempts.values()) {
      const team = teams.get(jobs.get(jobId)?.teamId ?? '')?.name ?? '';
      seconds[team] = (seconds[team] ?? 0) + ((finishedAt?.getTime() ?? this.time.now()) - assignedAt.getTime()) / 1000;
    }
    return seconds;
  }

  private outcome(): Outcome {
    const { jobs, attempts } = this.store.tables;
    return {
      seed: this.scenario.seed,
      virtualMs: this.time.now() - START_MS,
      events: this.events,
      jobs: tally([...jobs.values()].map(({ status }) => status)),
      attempts: tally([...attempts.values()].map(({ outcome, failure, stopReason }) => [outcome, failure?.code ?? stopReason].filter((part) => part !== null).join(' '))),
      shared: this.invariants.shared,
      faults: this.faultCounts.all(),
      heldSeconds: this.heldSeconds,
      fingerprint: this.fingerprint,
    };
  }

  private failure(error: unknown): SimulationFailure {
    const what = error instanceof Error ? (error.name === 'Violation' ? error.message : (error.stack ?? error.message)) : String(error);
    const atMs = this.time.now() - START_MS;
    const lines = [
      `seed ${this.scenario.seed}, virtual time ${(atMs / 1000).toFixed(3)} s, event ${this.events}: ${what}`,
      'the last events:',
      ...this.journal.lines(START_MS).map((line) => `  ${line}`),
      `again: npx nx run simulation:run ${this.scenario.replay}`,
    ];
    return new SimulationFailure(lines.join('\n'), { cause: error });
  }
}

const TOKEN_PREFIX = 'jtok-';
const fleetToken = `${TOKEN_PREFIX}fleet`;

function shownToken(id: string): string {
  return `${id}.${secretOf(id)}`;
}

/** Of the form that secrets have. */
function secretOf(id: string): string {
  return id.padEnd(43, '0');
}

function changeText(change: Change): (() => string) | null {
  if (change.table === 'job') {
    const { before, after } = change;
    if (before?.status !== after.status) return () => `${after.id}: ${before?.status ?? 'new'} -> ${after.status}, epoch ${after.epoch}`;
    if (before.stopReason !== after.stopReason) return () => `${after.id}: to stop, ${after.stopReason}`;
    return null;
  }
  if (change.table === 'attempt') {
    const { before, after } = change;
    if (before?.status !== after.status) return () => `${after.id} of ${after.jobId} on ${after.workerId}: ${after.status} ${after.outcome ?? ''} ${after.failure?.code ?? ''}`.trimEnd();
    return null;
  }
  if (change.table === 'worker') {
    const { before, after } = change;
    if (before?.status !== after.status || before.sessionId !== after.sessionId) return () => `${after.id}: ${after.status}, session ${after.sessionId ?? 'none'}`;
  }
  return null;
}

function tally(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of [...words].sort()) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

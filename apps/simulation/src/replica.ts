import { plan } from '@tunefleet/domain-scheduling';
import type { Metadata } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import { silentLogger } from '@tunefleet/foundation';
import type { FleetAccess, FleetStore, JobQueue, Outbox, RecordStore } from '@tunefleet/ports';
import { FleetGate, requireOwnHello, type WorkerCaller } from '../../control-plane/src/fleet/admission';
import { AttemptEndings } from '../../control-plane/src/fleet/attempt-endings';
import { FleetSession, type SessionDeps } from '../../control-plane/src/fleet/session';
import { toServiceError } from '../../control-plane/src/fleet/grpc-error';
import { defaultFleetSettings } from '../../control-plane/src/fleet/settings';
import { parseJoin } from '../../control-plane/src/fleet/worker-input';
import { ControlLoops } from '../../control-plane/src/loops/control-loops';
import type { SimulatedBlobs } from './blobs';
import type { FaultCounts } from './fault-counts';
import type { Invariants } from './invariants';
import type { Connection, Listener } from './network';
import type { Random } from './random';
import { storeOfReplica, type DatabaseWeather } from './replica-store';
import type { MachineTime } from './virtual-time';

export interface ReplicaDeps {
  readonly name: string;
  readonly time: MachineTime;
  readonly random: Random;
  readonly store: { readonly fleet: FleetStore; readonly records: RecordStore; readonly access: FleetAccess; readonly outbox: Outbox };
  readonly weather: DatabaseWeather;
  readonly blobs: SimulatedBlobs;
  readonly queue: JobQueue;
  readonly invariants: Invariants;
  readonly counts: FaultCounts;
}

/** One control plane: the production loops and sessions, between a simulated database and simulated streams. */
export class Replica implements Listener {
  readonly name: string;
  readonly records: RecordStore;
  readonly access: FleetAccess;
  isStopping = false;
  private readonly gate: FleetGate;
  private readonly fleet: FleetStore;
  private readonly loops: ControlLoops;
  private readonly endings: AttemptEndings;
  private readonly sessions = new Map<FleetSession, Connection>();
  private readonly byWorker = new Map<string, FleetSession>();
  private wakes: { close(): Promise<void> } | null = null;
  private sessionCount = 0;

  constructor(private readonly deps: ReplicaDeps) {
    const { time, random, store, weather, blobs, queue, invariants, counts } = deps;
    this.name = deps.name;
    const between = { time, random, weather, counts };
    this.fleet = storeOfReplica(store.fleet, between);
    this.records = storeOfReplica(store.records, between);
    this.access = storeOfReplica(store.access, between);
    this.gate = new FleetGate({ sharedToken: null }, this.access, time);
    const outbox = storeOfReplica(store.outbox, between);
    this.endings = new AttemptEndings({ fleet: this.fleet, records: this.records, blobs, resultCsv: (points) => `${points.length}`, logger: silentLogger });
    this.loops = new ControlLoops({
      ...{ store: this.fleet, records: this.records, outbox, queue, endings: this.endings, leaseMs: defaultFleetSettings.leaseMs, clock: time, timers: time, random: random.next, logger: silentLogger },
      plan: (snapshot) => {
        invariants.evaluated(snapshot);
        return plan(snapshot);
      },
    });
  }

  get isDead(): boolean {
    return this.deps.time.isDead;
  }

  get isListening(): boolean {
    return !this.isDead && !this.isStopping;
  }

  async start(): Promise<void> {
    this.wakes = await this.fleet.onWake((topic) => {
      const [what, workerId = ''] = topic.split(':');
      if (this.isDead) return;
      if (what === 'worker') this.byWorker.get(workerId)?.wake();
      if (what === 'revoked') this.byWorker.get(workerId)?.revoke();
    });
    this.deps.time.every(defaultFleetSettings.beatIntervalMs, () => {
      for (const session of this.sessions.keys()) session.tick();
    });
    await this.loops.start();
  }

  /** The process is gone from one moment to the next: calls under way get no answer, streams break. */
  kill(): void {
    this.deps.time.kill();
    void this.wakes?.close();
    for (const connection of this.sessions.values()) {
      if (this.deps.random.chance(0.7)) connection.cut();
      else connection.swallow();
    }
    this.sessions.clear();
    this.byWorker.clear();
  }

  /** As `FleetServer.stop` and the loops' end. @returns whether nothing killed it meanwhile */
  async shutDown(): Promise<boolean> {
    this.isStopping = true;
    await this.wakes?.close();
    for (const session of this.sessions.keys()) session.shutdown();
    await this.loops.stop();
    const isOurs = !this.isDead;
    if (isOurs) this.kill();
    return isOurs;
  }

  wakeRelay(): void {
    if (!this.isDead) this.loops.wakeRelay();
  }

  /** What `FleetServer` does with these gRPC calls, here with simulated ones. @throws ServiceError */
  async join(request: fleet.JoinRequest, metadata: Metadata): Promise<void> {
    try {
      await this.gate.join(parseJoin(request), metadata, request.workerId);
    } catch (error) {
      throw toServiceError(error);
    }
  }

  accept(connection: Connection): void {
    this.gate.identify(connection.metadata).then(
      (caller) => (connection.isOpen && this.isListening ? this.openSession(connection, caller) : undefined),
      (error: unknown) => this.hangUp(connection, error),
    );
  }

  private openSession(connection: Connection, caller: WorkerCaller): void {
    const session = new FleetSession(
      `${this.name}-session-${++this.sessionCount}`,
      {
        send: (message: fleet.ServerMessage) => {
          if (!this.isDead) connection.toWorker(message);
        },
        end: () => this.hangUp(connection),
        abort: (error) => this.hangUp(connection, error),
      },
      this.sessionDeps(caller),
    );
    this.sessions.set(session, connection);
    let turn: Promise<void> = Promise.resolve();
    let ended = false;
    connection.serve({
      onMessage: (message) => {
        if (ended || this.isDead) return;
        turn = turn.then(() => (session.isClosed ? undefined : session.receive(message))).catch((error: unknown) => (this.isDead ? undefined : session.fail(error)));
      },
      onEnd: () => {
        if (ended || this.isDead) return;
        ended = true;
        turn = turn.then(() => this.closeSession(session, connection));
      },
    });
  }

  private sessionDeps(caller: WorkerCaller): SessionDeps {
    const { blobs, time } = this.deps;
    return {
      ...{ store: this.fleet, blobs, endings: this.endings, settings: defaultFleetSettings, replicaId: this.name, clock: time, logger: silentLogger },
      access: this.access,
      admit: (hello) => requireOwnHello(caller, hello),
      onRegistered: (workerId, registered) => {
        this.byWorker.get(workerId)?.fence();
        this.byWorker.set(workerId, registered);
      },
    };
  }

  private hangUp(connection: Connection, error?: unknown): void {
    if (this.isDead) return;
    connection.endToWorker(error === undefined ? undefined : toServiceError(error));
    // As grpc's half-open streams are dropped when the worker does not hang up itself.
    this.deps.time.after(2_000, () => connection.cut());
  }

  private async closeSession(session: FleetSession, connection: Connection): Promise<void> {
    this.sessions.delete(session);
    for (const [workerId, current] of this.byWorker) if (current === session) this.byWorker.delete(workerId);
    if (connection.isOpen) connection.endToWorker();
    // Where this fails, the reconciler marks the worker silent.
    await session.disconnected().catch(() => undefined);
  }
}

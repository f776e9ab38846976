import { EventEmitter } from 'node:events';
import { status } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import { errorMessage } from '@tunefleet/foundation';
import type { Random } from './random';
import type { Scenario } from './scenario';
import type { VirtualTime } from './virtual-time';

/** Where a connection arrives. */
export interface Listener {
  readonly name: string;
  readonly isDead: boolean;
  accept(connection: Connection): void;
}

export interface ServerSide {
  /** Messages come one after the other, in order. */
  onMessage(message: fleet.WorkerMessage): void;
  /** The worker hung up, or the network did. */
  onEnd(): void;
}

/** Kinds that may come twice without harm; a stream never doubles the others either, because they open or grant something. */
const REPEATABLE: ReadonlySet<string> = new Set(['beat', 'events', 'finished', 'assignAck', 'lease', 'stop', 'eventAck', 'finishedAck', 'assign']);

/** Carries streams between workers and replicas: with delay, sometimes twice, sometimes into nowhere. */
export class Network {
  private readonly connections = new Set<Connection>();
  private readonly isolated = new Set<string>();

  constructor(
    readonly time: VirtualTime,
    readonly random: Random,
    readonly scenario: Pick<Scenario, 'network'>,
    private readonly listeners: () => readonly Listener[],
  ) {}

  /** As gRPC would: the call is there at once, and fails later when nobody answers. */
  connect(worker: string): Connection {
    const open = this.isolated.has(worker) ? [] : this.listeners().filter(({ isDead }) => !isDead);
    const listener = open.length === 0 ? null : this.random.pick(open);
    const connection = new Connection(this, worker, listener);
    this.connections.add(connection);
    if (listener === null) this.time.after(this.delayMs(), () => connection.cut());
    else this.time.after(this.delayMs(), () => connection.isOpen && listener.accept(connection));
    return connection;
  }

  /** Nothing of this worker arrives anywhere for a while; it is not told. */
  isolate(worker: string, ms: number): void {
    this.isolated.add(worker);
    for (const connection of this.of(worker)) connection.swallow();
    this.time.after(ms, () => this.isolated.delete(worker));
  }

  isIsolated(worker: string): boolean {
    return this.isolated.has(worker);
  }

  forget(connection: Connection): void {
    this.connections.delete(connection);
  }

  of(owner: string): Connection[] {
    return [...this.connections].filter(({ worker, listener }) => worker === owner || listener?.name === owner);
  }

  delayMs(): number {
    const { latencyMs, slow } = this.scenario.network;
    return this.random.exponential(latencyMs) + (this.random.chance(slow) ? this.random.between(1_000, 14_000) : 0);
  }
}

/** One stream. The client's half looks like grpc-js's duplex call as far as the worker's link uses it. */
export class Connection extends EventEmitter {
  isOpen = true;
  private swallows = false;
  private server: ServerSide | null = null;
  private readonly early: fleet.WorkerMessage[] = [];
  private upFreeAtMs = 0;
  private downFreeAtMs = 0;

  constructor(
    private readonly network: Network,
    readonly worker: string,
    readonly listener: Listener | null,
  ) {
    super();
  }

  serve(server: ServerSide): void {
    this.server = server;
    for (const message of this.early.splice(0)) server.onMessage(message);
  }

  /** The worker's half: `write`, `end`, `cancel`. */
  write(message: fleet.WorkerMessage): boolean {
    this.carry('up', message.message?.$case, () => (this.server === null ? this.early.push(message) : this.server.onMessage(message)));
    return true;
  }

  end(): void {
    this.carry('up', undefined, () => this.server?.onEnd());
  }

  cancel(): void {
    if (!this.isOpen) return;
    this.close();
    this.later(() => this.emit('error', failure(status.CANCELLED, 'cancelled')));
    // The other side may learn of it much later, if the way is broken.
    this.network.time.after(this.swallows ? this.network.random.between(5_000, 60_000) : this.network.delayMs(), () => this.server?.onEnd());
  }

  toWorker(message: fleet.ServerMessage): void {
    this.carry('down', message.message?.$case, () => this.emit('data', message));
  }

  endToWorker(error?: unknown): void {
    this.carry('down', undefined, () => {
      if (error === undefined) this.emit('end');
      else this.emit('error', failure(status.UNAVAILABLE, errorMessage(error)));
      this.close();
    });
  }

  /** Nothing arrives any more in either direction, and nobody is told. */
  swallow(): void {
    this.swallows = true;
  }

  /** Both sides see it break, each in its own time. */
  cut(): void {
    if (!this.isOpen) return;
    this.close();
    const { time, random } = this.network;
    time.after(random.between(0, 2_000), () => this.emit('error', failure(status.UNAVAILABLE, 'the connection was cut')));
    time.after(random.between(0, 10_000), () => this.server?.onEnd());
  }

  private close(): void {
    this.isOpen = false;
    this.network.forget(this);
  }

  /** In order, as TCP does it. What is under way when the worker hangs up still arrives. */
  private carry(way: 'up' | 'down', kind: string | undefined, arrive: () => void): void {
    if (!this.isOpen) return;
    const { time, random, scenario } = this.network;
    const freeAtMs = way === 'up' ? this.upFreeAtMs : this.downFreeAtMs;
    const atMs = Math.max(freeAtMs, time.now() + this.network.delayMs());
    if (way === 'up') this.upFreeAtMs = atMs;
    else this.downFreeAtMs = atMs;
    const times = kind !== undefined && REPEATABLE.has(kind) && random.chance(scenario.network.duplicate) ? 2 : 1;
    for (let n = 0; n < times; n++) {
      time.after(atMs - time.now(), () => {
        if (!this.swallows && (this.isOpen || way === 'up')) arrive();
      });
    }
  }

  private later(run: () => void): void {
    this.network.time.after(0, run);
  }
}

function failure(code: number, details: string): Error & { code: number; details: string } {
  return Object.assign(new Error(details), { code, details });
}

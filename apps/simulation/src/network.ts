import { EventEmitter } from 'node:events';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import type { FaultCounts } from './fault-counts';
import type { Random } from './random';
import type { Scenario } from './scenario';
import type { VirtualTime } from './virtual-time';

/** Where a connection arrives. */
export interface Listener {
  readonly isListening: boolean;
  accept(connection: Connection): void;
  /** @throws ServiceError */
  join(request: fleet.JoinRequest, metadata: Metadata): Promise<void>;
}

export interface ServerSide {
  /** Messages come one after the other, in order. */
  onMessage(message: fleet.WorkerMessage): void;
  /** The worker hung up, or the network did. */
  onEnd(): void;
}

/** Kinds that may come twice without harm; a stream never doubles the others either, because they open or grant something. */
const REPEATABLE: ReadonlySet<string> = new Set(['beat', 'events', 'finished', 'assignAck', 'lease', 'stop', 'eventAck', 'finishedAck', 'assign']);

const ACKNOWLEDGEMENTS: ReadonlySet<string> = new Set(['assignAck', 'eventAck', 'finishedAck']);
/** So late that somebody has tried again, or gives up soon. */
const LATE_MS = 1_000;
const JOIN_TIMEOUT_MS = 10_000;

/** Carries streams between workers and replicas: with delay, sometimes twice, sometimes into nowhere. */
export class Network {
  private readonly connections = new Map<string, Set<Connection>>();
  private readonly newest = new Map<string, Connection>();
  private readonly isolated = new Set<string>();

  constructor(
    readonly time: VirtualTime,
    readonly random: Random,
    readonly scenario: Pick<Scenario, 'network'>,
    readonly counts: FaultCounts,
    private readonly listeners: () => readonly Listener[],
  ) {}

  /** As gRPC would: the call is there at once, and fails later when nobody answers. */
  connect(worker: string, metadata: Metadata): Connection {
    const listener = this.listenerFor(worker);
    const connection = new Connection(this, worker, metadata);
    this.connections.set(worker, (this.connections.get(worker) ?? new Set()).add(connection));
    if (listener === null) this.time.after(this.delayMs(), () => connection.cut());
    else
      this.time.after(this.delayMs(), () => {
        if (!connection.isOpen) return;
        this.newest.set(worker, connection);
        listener.accept(connection);
      });
    return connection;
  }

  /** @throws ServiceError of the other side, or of the way */
  async join(request: fleet.JoinRequest, metadata: Metadata): Promise<void> {
    const worker = request.workerId;
    const listener = this.listenerFor(worker);
    await this.pause(this.delayMs());
    if (listener === null) throw failure(status.UNAVAILABLE, 'nobody answers');
    const answer = listener.join(request, metadata).finally(() => this.pause(this.delayMs()));
    const tooLate = this.pause(JOIN_TIMEOUT_MS).then(() => Promise.reject(failure(status.DEADLINE_EXCEEDED, 'no answer')));
    await Promise.race([answer, tooLate]);
    if (this.isIsolated(worker)) return tooLate;
  }

  /** Nothing of this worker arrives anywhere for a while; it is not told. */
  isolate(worker: string, ms: number): boolean {
    if (this.isolated.has(worker)) return false;
    this.isolated.add(worker);
    for (const connection of this.of(worker)) connection.swallow();
    this.time.after(ms, () => this.isolated.delete(worker));
    return true;
  }

  isIsolated(worker: string): boolean {
    return this.isolated.has(worker);
  }

  forget(connection: Connection): void {
    this.connections.get(connection.worker)?.delete(connection);
  }

  of(worker: string): Connection[] {
    return [...(this.connections.get(worker) ?? [])];
  }

  /** A stream opened later has already spoken for the worker. */
  isOvertaken(connection: Connection): boolean {
    return this.newest.get(connection.worker) !== connection;
  }

  delayMs(): number {
    const { latencyMs, slow } = this.scenario.network;
    return this.random.exponential(latencyMs) + (this.random.chance(slow) ? this.random.between(LATE_MS, 14_000) : 0);
  }

  private listenerFor(worker: string): Listener | null {
    const open = this.isolated.has(worker) ? [] : this.listeners().filter(({ isListening }) => isListening);
    return open.length === 0 ? null : this.random.pick(open);
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.time.after(ms, resolve));
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
    readonly metadata: Metadata,
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

  endToWorker(error?: ServiceError): void {
    this.carry('down', undefined, () => {
      if (error === undefined) this.emit('end');
      else this.emit('error', error);
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
    const { time, random, scenario, counts } = this.network;
    const freeAtMs = way === 'up' ? this.upFreeAtMs : this.downFreeAtMs;
    const atMs = Math.max(freeAtMs, time.now() + this.network.delayMs());
    if (kind !== undefined && atMs - time.now() >= LATE_MS) counts.add(ACKNOWLEDGEMENTS.has(kind) ? 'acknowledgement late' : 'message late');
    if (way === 'up') this.upFreeAtMs = atMs;
    else this.downFreeAtMs = atMs;
    const times = kind !== undefined && REPEATABLE.has(kind) && random.chance(scenario.network.duplicate) ? 2 : 1;
    for (let n = 0; n < times; n++) {
      time.after(atMs - time.now(), () => {
        if (this.swallows || (!this.isOpen && way === 'down')) return;
        if (n > 0) counts.add('message doubled');
        if (kind !== undefined && way === 'up' && this.network.isOvertaken(this)) counts.add('message overtaken by a newer stream');
        arrive();
      });
    }
  }

  private later(run: () => void): void {
    this.network.time.after(0, run);
  }
}

function failure(code: number, details: string): ServiceError {
  return Object.assign(new Error(details), { code, details, metadata: new Metadata() });
}

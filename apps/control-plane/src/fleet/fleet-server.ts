import { randomUUID } from 'node:crypto';
import { Server, type Metadata, type ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { errorMessage, sleep, TunefleetError, type Clock, type Logger } from '@tunefleet/foundation';
import type { BlobStore, FleetAccess, FleetStore, WakeTopic } from '@tunefleet/ports';
import { FleetGate, requireOwnHello, type FailedJoinsRule, type WorkerCaller } from './admission';
import { ArtifactCalls } from './artifact-calls';
import { ArtifactService, type ArtifactCaller } from './artifact-service';
import type { AttemptEndings } from './attempt-endings';
import { toServiceError } from './grpc-error';
import { FleetSession } from './session';
import { serverCredentials, type FleetListen } from './server-credentials';
import { defaultFleetSettings, type FleetSettings } from './settings';
import { parseJoin } from './worker-input';

export interface FleetServerOptions extends FleetListen {
  /** 0: any free port. */
  readonly port: number;
  /** Lets any number of workers join; null: only join tokens do. */
  readonly sharedToken: string | null;
  readonly failedJoins?: FailedJoinsRule;
  readonly settings?: Partial<FleetSettings>;
}

export interface FleetServerDeps {
  readonly store: FleetStore;
  readonly access: FleetAccess;
  readonly blobs: BlobStore;
  readonly endings: AttemptEndings;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Time for Goodbyes to leave and uploads to end when the server stops. */
const STOP_GRACE_MS = 2_000;

/** A worker that does not hang up after the last word is cut off after this. */
const LAST_WORD_MS = 2_000;

/** The gRPC side of the control plane: one session per worker on this replica, and the artifact calls. */
export class FleetServer {
  private readonly replicaId = randomUUID();
  private readonly settings: FleetSettings;
  private readonly sessions = new Set<FleetSession>();
  private readonly byWorker = new Map<string, FleetSession>();
  private readonly gate: FleetGate;
  private readonly artifactCalls: ArtifactCalls;
  private readonly streams = new Set<Promise<void>>();
  private server: Server | null = null;
  private wakes: { close(): Promise<void> } | null = null;
  private ticker: NodeJS.Timeout | null = null;

  constructor(
    private readonly options: FleetServerOptions,
    private readonly deps: FleetServerDeps,
  ) {
    this.settings = { ...defaultFleetSettings, ...options.settings };
    this.gate = new FleetGate(options, deps.access, deps.clock);
    this.artifactCalls = new ArtifactCalls(this.settings.maxArtifactCalls);
  }

  /** @returns the port it listens on. @throws unavailable when it cannot be bound, invalid_input as `serverCredentials` */
  async start(): Promise<number> {
    const credentials = serverCredentials(this.options);
    this.wakes = await this.deps.store.onWake((topic) => this.onWake(topic));
    this.server = new Server({
      'grpc.max_receive_message_length': this.settings.maxMessageBytes,
      'grpc.max_send_message_length': this.settings.maxMessageBytes,
      'grpc.max_concurrent_streams': this.settings.maxConcurrentStreams,
      'grpc.max_connection_idle_ms': this.settings.connectionIdleMs,
    });
    this.server.addService(fleet.FleetService, this.handlers());
    const port = await this.bind(this.server, credentials);
    this.ticker = setInterval(() => this.tick(), this.settings.beatIntervalMs);
    this.deps.logger.info({ host: this.options.host, port }, 'fleet server listening');
    return port;
  }

  /** Says goodbye to every worker, so that they come back to another replica at once, then stops listening. */
  async stop(): Promise<void> {
    if (this.ticker !== null) clearInterval(this.ticker);
    await this.wakes?.close();
    for (const session of this.sessions) session.shutdown();
    const server = this.server;
    if (server === null) return;
    await new Promise<void>((resolve) => {
      const force = setTimeout(() => {
        server.forceShutdown();
        resolve();
      }, STOP_GRACE_MS);
      server.tryShutdown(() => {
        clearTimeout(force);
        resolve();
      });
    });
    // The ends of the sessions go on record before the store is closed.
    const ended = new AbortController();
    await Promise.race([Promise.all(this.streams), sleep(STOP_GRACE_MS, ended.signal)]);
    ended.abort();
    this.server = null;
  }

  get connectedWorkers(): number {
    return this.byWorker.size;
  }

  private handlers(): fleet.FleetServer {
    const artifacts = new ArtifactService(this.deps.access, this.deps.blobs, this.settings);
    return {
      join: (call, callback) => {
        const { metadata, request } = call;
        this.join(request, metadata, addressOf(call.getPeer())).then(
          () => callback(null, {}),
          (error: unknown) => callback(this.logged(error, `worker not let in from ${call.getPeer()}`)),
        );
      },
      session: (call) => {
        const stream = this.runSession(call).finally(() => this.streams.delete(stream));
        this.streams.add(stream);
      },
      putArtifact: (call, callback) => {
        this.asWorker(call.metadata, (caller) => artifacts.put(call, caller)).then(
          (response) => callback(null, response),
          (error: unknown) => callback(this.logged(error, 'artifact upload failed')),
        );
      },
      getArtifact: (call) => {
        this.asWorker(call.metadata, (caller) => artifacts.get(call, caller)).then(
          () => call.end(),
          (error: unknown) => call.emit('error', this.logged(error, 'artifact download failed')),
        );
      },
    };
  }

  private async join(request: fleet.JoinRequest, metadata: Metadata, address: string): Promise<void> {
    const input = parseJoin(request);
    await this.gate.join(input, metadata, address);
    this.deps.logger.info({ workerId: input.workerId, name: input.name, address }, 'worker joined');
  }

  private async asWorker<T>(metadata: Metadata, run: (caller: ArtifactCaller) => Promise<T>): Promise<T> {
    const { workerId } = await this.gate.identify(metadata);
    return this.artifactCalls.run(workerId, (signal) => run({ workerId, signal }));
  }

  private logged(error: unknown, message: string): ReturnType<typeof toServiceError> {
    this.deps.logger.warn({ err: error }, message);
    return toServiceError(error);
  }

  private async runSession(call: ServerDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>): Promise<void> {
    // Without a listener a broken stream would end the process; the loop below notices it as well.
    call.on('error', (error) => this.deps.logger.debug({ err: error }, 'worker stream broke'));
    let caller: WorkerCaller;
    try {
      caller = await this.gate.identify(call.metadata);
    } catch (error) {
      call.emit('error', this.logged(error, `worker refused at ${call.getPeer()}`));
      return;
    }
    if (call.cancelled) return;
    const session = this.openSession(call, caller);
    try {
      // Not destroyed when a message is refused: then the status that says why could not be sent any more.
      for await (const message of call.iterator({ destroyOnReturn: false }) as AsyncIterable<fleet.WorkerMessage>) {
        await session.receive(message);
      }
      if (!session.isClosed) call.end();
    } catch (error) {
      if (!call.cancelled) session.fail(error);
    } finally {
      await this.closeSession(session);
    }
  }

  private openSession(call: ServerDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>, caller: WorkerCaller): FleetSession {
    const session = new FleetSession(
      randomUUID(),
      {
        send: (message) => {
          if (call.cancelled || call.writableEnded) return;
          if (call.writableLength >= this.settings.maxUnsentMessages) {
            throw new TunefleetError('unavailable', `the worker reads too slowly: ${call.writableLength} messages wait for it`);
          }
          call.write(message);
        },
        end: () => {
          call.end();
          dropLater(call);
        },
        abort: (error) => {
          call.emit('error', toServiceError(error));
          dropLater(call);
        },
      },
      {
        store: this.deps.store,
        access: this.deps.access,
        admit: (hello) => requireOwnHello(caller, hello),
        blobs: this.deps.blobs,
        endings: this.deps.endings,
        settings: this.settings,
        replicaId: this.replicaId,
        clock: this.deps.clock,
        logger: this.deps.logger,
        onRegistered: (workerId, registered) => this.register(workerId, registered),
      },
    );
    this.sessions.add(session);
    return session;
  }

  private register(workerId: string, session: FleetSession): void {
    this.byWorker.get(workerId)?.fence();
    this.byWorker.set(workerId, session);
  }

  private async closeSession(session: FleetSession): Promise<void> {
    this.sessions.delete(session);
    for (const [workerId, current] of this.byWorker) if (current === session) this.byWorker.delete(workerId);
    try {
      await session.disconnected();
    } catch (error) {
      // The worker is marked silent by the reconciler instead.
      this.deps.logger.warn({ err: error }, 'the end of a worker session could not be recorded');
    }
  }

  private onWake(topic: WakeTopic): void {
    const [what, workerId = ''] = topic.split(':');
    if (what === 'worker') this.byWorker.get(workerId)?.wake();
    if (what === 'revoked') {
      this.byWorker.get(workerId)?.revoke();
      this.artifactCalls.end(workerId, new TunefleetError('permission_denied', `worker ${workerId} was revoked`, { reason: 'worker_revoked' }));
    }
  }

  private tick(): void {
    for (const session of this.sessions) session.tick();
  }

  private bind(server: Server, credentials: ServerCredentials): Promise<number> {
    const { host, port } = this.options;
    return new Promise((resolve, reject) => {
      server.bindAsync(`${host.includes(':') ? `[${host}]` : host}:${port}`, credentials, (error, bound) => {
        if (error === null) return resolve(bound);
        reject(new TunefleetError('unavailable', `the fleet server cannot listen on ${host}:${port}: ${errorMessage(error)}`, { cause: error }));
      });
    });
  }
}

/** Without the port. */
function addressOf(peer: string): string {
  return peer.replace(/:\d+$/, '');
}

function dropLater(call: { destroy(): unknown }): void {
  setTimeout(() => call.destroy(), LAST_WORD_MS).unref();
}

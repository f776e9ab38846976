import { randomUUID } from 'node:crypto';
import { Server, ServerCredentials, type ServerDuplexStream, type Metadata } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { errorMessage, sleep, TunefleetError, type Clock, type Logger } from '@tunefleet/foundation';
import type { BlobStore, FleetStore, WakeTopic } from '@tunefleet/ports';
import { ArtifactService } from './artifact-service';
import type { AttemptEndings } from './attempt-endings';
import { toServiceError } from './grpc-error';
import { FleetSession } from './session';
import { defaultFleetSettings, type FleetSettings } from './settings';
import { requireWorkerToken } from './worker-token';

export interface FleetServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly workerToken: string;
  /** PEM; without it the server speaks plain text, meant for loopback and private networks. */
  readonly tls?: { readonly key: Buffer; readonly cert: Buffer };
  readonly settings?: Partial<FleetSettings>;
}

export interface FleetServerDeps {
  readonly store: FleetStore;
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
  private readonly streams = new Set<Promise<void>>();
  private server: Server | null = null;
  private wakes: { close(): Promise<void> } | null = null;
  private ticker: NodeJS.Timeout | null = null;

  constructor(
    private readonly options: FleetServerOptions,
    private readonly deps: FleetServerDeps,
  ) {
    this.settings = { ...defaultFleetSettings, ...options.settings };
  }

  /** @returns the port it listens on. @throws unavailable when it cannot be bound */
  async start(): Promise<number> {
    this.wakes = await this.deps.store.onWake((topic) => this.onWake(topic));
    this.server = new Server({
      'grpc.max_receive_message_length': this.settings.maxMessageBytes,
      'grpc.max_send_message_length': this.settings.maxMessageBytes,
    });
    this.server.addService(fleet.FleetService, this.handlers());
    const port = await this.bind(this.server);
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
    const artifacts = new ArtifactService(this.deps.store, this.deps.blobs, this.settings);
    return {
      session: (call) => {
        const stream = this.runSession(call).finally(() => this.streams.delete(stream));
        this.streams.add(stream);
      },
      putArtifact: (call, callback) => {
        this.authorized(call.metadata, () => artifacts.put(call)).then(
          (response) => callback(null, response),
          (error: unknown) => callback(this.logged(error, 'artifact upload failed')),
        );
      },
      getArtifact: (call) => {
        this.authorized(call.metadata, () => artifacts.get(call)).then(
          () => call.end(),
          (error: unknown) => call.emit('error', this.logged(error, 'artifact download failed')),
        );
      },
    };
  }

  private async authorized<T>(metadata: Metadata, run: () => Promise<T>): Promise<T> {
    requireWorkerToken(metadata, this.options.workerToken);
    return run();
  }

  private logged(error: unknown, message: string): ReturnType<typeof toServiceError> {
    this.deps.logger.warn({ err: error }, message);
    return toServiceError(error);
  }

  private async runSession(call: ServerDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>): Promise<void> {
    // Without a listener a broken stream would end the process; the loop below notices it as well.
    call.on('error', (error) => this.deps.logger.debug({ err: error }, 'worker stream broke'));
    try {
      requireWorkerToken(call.metadata, this.options.workerToken);
    } catch (error) {
      call.emit('error', this.logged(error, `worker refused at ${call.getPeer()}`));
      return;
    }
    const session = this.openSession(call);
    try {
      for await (const message of call as AsyncIterable<fleet.WorkerMessage>) {
        await session.receive(message);
      }
      if (!session.isClosed) call.end();
    } catch (error) {
      if (!call.cancelled) session.fail(error);
    } finally {
      await this.closeSession(session);
    }
  }

  private openSession(call: ServerDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>): FleetSession {
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
    if (topic.startsWith('worker:')) this.byWorker.get(topic.slice('worker:'.length))?.wake();
  }

  private tick(): void {
    for (const session of this.sessions) session.tick();
  }

  private bind(server: Server): Promise<number> {
    const { host, port, tls } = this.options;
    const credentials = tls === undefined ? ServerCredentials.createInsecure() : ServerCredentials.createSsl(null, [{ private_key: tls.key, cert_chain: tls.cert }]);
    return new Promise((resolve, reject) => {
      server.bindAsync(`${host.includes(':') ? `[${host}]` : host}:${port}`, credentials, (error, bound) => {
        if (error === null) return resolve(bound);
        reject(new TunefleetError('unavailable', `the fleet server cannot listen on ${host}:${port}: ${errorMessage(error)}`, { cause: error }));
      });
    });
  }
}

function dropLater(call: { destroy(): unknown }): void {
  setTimeout(() => call.destroy(), LAST_WORD_MS).unref();
}

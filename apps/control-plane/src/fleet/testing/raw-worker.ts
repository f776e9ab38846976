import { credentials, Metadata, status, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import { fleet, type ArtifactRef } from '@tunefleet/contracts';
import { newId } from '@tunefleet/foundation';
import { newSecret } from '../admission';
import { until } from './fleet-harness';

type WorkerPayload = NonNullable<fleet.WorkerMessage['message']>;
type ServerPayload = NonNullable<fleet.ServerMessage['message']>;

type ValueOf<Case extends ServerPayload['$case']> = Extract<ServerPayload, { $case: Case }>['value'];

/** How a call ended: a gRPC status, by name, with its text. */
export interface CallEnd {
  readonly status: string;
  readonly details: string;
}

const LARGE = 64 * 1024 * 1024;

/** A worker that says whatever a test wants it to, on the wire. */
export class RawWorker {
  readonly secret = newSecret();
  readonly heard: ServerPayload[] = [];
  private readonly client: fleet.FleetClient;
  private stream: ClientDuplexStream<fleet.WorkerMessage, fleet.ServerMessage> | null = null;
  private streamEnd: CallEnd | null = null;

  constructor(
    address: string,
    readonly id: string = newId('worker'),
  ) {
    // Without a bound of its own: what is refused is refused by the other side.
    this.client = new fleet.FleetClient(address, credentials.createInsecure(), { 'grpc.max_send_message_length': LARGE });
  }

  close(): void {
    this.stream?.cancel();
    this.client.close();
  }

  join(token: string, changes: Partial<fleet.JoinRequest> = {}): Promise<CallEnd> {
    return new Promise((resolve) =>
      this.client.join({ workerId: this.id, secret: this.secret, name: 'raw', labels: {}, ...changes }, bearer(token), (error) => resolve(endOf(error))),
    );
  }

  hello(changes: Partial<fleet.Hello> = {}): fleet.Hello {
    const device = { kind: 'cpu', name: 'raw', backend: 'none', backendVersion: '0', memoryBytesTotal: 2 ** 40, memoryBytesFree: 2 ** 40, bf16: false, threads: 1 };
    return { protocolVersion: 1, workerId: this.id, bootId: `boot-${this.id}`, name: 'raw', version: '0', device, modelsOnDisk: [], modelInMemory: '', running: [], labels: {}, jobKinds: ['fine-tune', 'eval'], slots: 1, ...changes };
  }

  /** Opens a session and says hello; with `credit`, asks for a job. */
  open(options: { readonly hello?: Partial<fleet.Hello>; readonly credit?: boolean; readonly shown?: string; readonly metadata?: Readonly<Record<string, string>> } = {}): void {
    const metadata = bearer(options.shown ?? `${this.id}.${this.secret}`);
    for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.set(name, value);
    this.streamEnd = null;
    const stream = this.client.session(metadata);
    this.stream = stream;
    // Of an earlier session nothing more is heard.
    const end = (error: ServiceError | null): void => {
      if (this.stream === stream) this.streamEnd ??= endOf(error);
    };
    stream.on('data', ({ message }: fleet.ServerMessage) => {
      if (message !== undefined && this.stream === stream) this.heard.push(message);
    });
    stream.on('error', end);
    stream.on('end', () => end(null));
    this.say({ $case: 'hello', value: this.hello(options.hello) });
    if (options.credit === true) this.say({ $case: 'credit', value: { jobs: 1, modelsOnDisk: [], modelInMemory: '' } });
  }

  say(message: WorkerPayload): void {
    this.stream?.write({ message });
  }

  async hear<Case extends ServerPayload['$case']>($case: Case, fits: (value: ValueOf<Case>) => boolean = () => true): Promise<ValueOf<Case>> {
    const find = (): ValueOf<Case> | undefined => this.heard.filter((message) => message.$case === $case).map((message) => message.value as ValueOf<Case>).find(fits);
    await until(
      `${$case} from the control plane`,
      () => find() !== undefined || this.streamEnd !== null,
      () => JSON.stringify(this.heard.map((message) => message.$case)),
    );
    const found = find();
    if (found === undefined) throw new Error(`the session ended before ${$case}: ${JSON.stringify(this.streamEnd)}`);
    return found;
  }

  /** The end of the session, waited for. */
  async ended(): Promise<CallEnd> {
    await until('the session to end', () => this.streamEnd !== null);
    if (this.streamEnd === null) throw new Error('unreachable');
    return this.streamEnd;
  }

  get isOpen(): boolean {
    return this.stream !== null && this.streamEnd === null;
  }

  /** A job's assignment, accepted. */
  async takeJob(jobId: string): Promise<fleet.AttemptRef> {
    const { attempt } = await this.hear('assign', (assign) => assign.attempt?.jobId === jobId);
    if (attempt === undefined) throw new Error('an assignment without an attempt');
    this.say({ $case: 'assignAck', value: { attempt, accepted: true, reason: '' } });
    return attempt;
  }

  put(attempt: fleet.AttemptRef, artifact: ArtifactRef, parts: readonly Buffer[]): Promise<CallEnd & { readonly alreadyPresent?: boolean }> {
    return new Promise((resolve) => {
      const call = this.client.putArtifact(bearer(`${this.id}.${this.secret}`), (error, answer) => resolve({ ...endOf(error), ...(error === null ? { alreadyPresent: answer?.alreadyPresent ?? false } : {}) }));
      call.on('error', () => undefined);
      call.write({ part: { $case: 'header', value: { attempt, artifact } } });
      for (const value of parts) call.write({ part: { $case: 'data', value } });
      call.end();
    });
  }

  /** An upload that sends its header and then nothing. */
  hangingPut(attempt: fleet.AttemptRef, artifact: ArtifactRef): Promise<CallEnd> {
    return new Promise((resolve) => {
      const call = this.client.putArtifact(bearer(`${this.id}.${this.secret}`), (error) => resolve(endOf(error)));
      call.write({ part: { $case: 'header', value: { attempt, artifact } } });
    });
  }

  get(attempt: fleet.AttemptRef, sha256: string, offset = 0): Promise<CallEnd & { readonly bytes: Buffer }> {
    return new Promise((resolve) => {
      const parts: Uint8Array[] = [];
      const call = this.client.getArtifact({ attempt, sha256, offset }, bearer(`${this.id}.${this.secret}`));
      call.on('data', ({ data }: fleet.ArtifactChunk) => parts.push(data));
      call.on('error', (error: ServiceError) => resolve({ ...endOf(error), bytes: Buffer.concat(parts) }));
      call.on('end', () => resolve({ ...endOf(null), bytes: Buffer.concat(parts) }));
    });
  }
}

function bearer(shown: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${shown}`);
  return metadata;
}

function endOf(error: ServiceError | null): CallEnd {
  return error === null ? { status: 'OK', details: '' } : { status: status[error.code] ?? String(error.code), details: error.details };
}

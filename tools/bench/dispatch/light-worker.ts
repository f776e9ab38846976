import { randomBytes } from 'node:crypto';
import { credentials, Metadata, type ClientDuplexStream } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { newId } from '@tunefleet/foundation';
import { WORKER_TOKEN } from './service';

type Payload = NonNullable<fleet.WorkerMessage['message']>;

/** Wall clock with microseconds, comparable with the database's on the same machine. */
export const wallMs = (): number => performance.timeOrigin + performance.now();

export interface Assigned {
  readonly attempt: fleet.AttemptRef;
  /** As `wallMs`. */
  readonly atMs: number;
}

/** A worker without an engine: the real protocol on a real connection, so that nothing but the control plane is measured. */
export class LightWorker {
  readonly id = newId('worker');
  onAssign: (assigned: Assigned) => void = () => undefined;
  private readonly secret = randomBytes(32).toString('base64url');
  private stream: ClientDuplexStream<fleet.WorkerMessage, fleet.ServerMessage> | null = null;
  private running: fleet.AttemptRef | null = null;
  private seq = 0;
  private beat: NodeJS.Timeout | null = null;
  private onEventAck: () => void = () => undefined;
  private onFinishedAck: () => void = () => undefined;

  private constructor(private readonly client: fleet.FleetClient) {}

  /** So many workers, some of them on one connection. */
  static async connect(address: string, count: number): Promise<LightWorker[]> {
    const workers: LightWorker[] = [];
    let client: fleet.FleetClient | null = null;
    for (let index = 0; index < count; index++) {
      if (client === null || index % 50 === 0) client = new fleet.FleetClient(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
      const worker = new LightWorker(client);
      await worker.open();
      workers.push(worker);
    }
    return workers;
  }

  /** Ready for one job. */
  credit(): void {
    this.say({ $case: 'credit', value: { jobs: 1, modelsOnDisk: [], modelInMemory: '' } });
  }

  accept(attempt: fleet.AttemptRef): void {
    this.running = attempt;
    this.seq = 0;
    this.say({ $case: 'assignAck', value: { attempt, accepted: true, reason: '' } });
  }

  /** Resolves when the batch is stored. @param payloads in order */
  report(payloads: readonly NonNullable<fleet.Event['payload']>[]): Promise<void> {
    const attempt = this.running;
    if (attempt === null) throw new Error('no attempt to report of');
    const events = payloads.map((payload) => ({ seq: ++this.seq, timeMs: Date.now(), payload }));
    return new Promise((resolve) => {
      this.onEventAck = resolve;
      this.say({ $case: 'events', value: { attempt, events } });
    });
  }

  /** Ends the job, with a failure that is the user's and not repeated: of all ends the one with the least to send. */
  finish(attempt: fleet.AttemptRef): Promise<void> {
    this.running = null;
    return new Promise((resolve) => {
      this.onFinishedAck = resolve;
      this.say({ $case: 'finished', value: { attempt, lastSeq: this.seq, outcome: { $case: 'failed', value: { failureClass: 'user', code: 'bench', message: 'ended by the bench', param: '', logTail: [] } } } });
    });
  }

  close(): void {
    if (this.beat !== null) clearInterval(this.beat);
    this.stream?.cancel();
    this.client.close();
  }

  private async open(): Promise<void> {
    await new Promise<void>((resolve, reject) => this.client.join({ workerId: this.id, secret: this.secret, name: this.id, labels: {} }, bearer(WORKER_TOKEN), (error) => (error === null ? resolve() : reject(error))));
    const stream = this.client.session(bearer(`${this.id}.${this.secret}`));
    this.stream = stream;
    const device = { kind: 'gpu', name: 'none', backend: 'none', backendVersion: '0', memoryBytesTotal: 2 ** 36, memoryBytesFree: 2 ** 36, bf16: true, threads: 1 };
    await new Promise<void>((resolve, reject) => {
      stream.on('error', reject);
      stream.on('data', ({ message }: fleet.ServerMessage) => {
        if (message?.$case === 'welcome') resolve();
        else if (message !== undefined) this.hear(message);
      });
      this.say({ $case: 'hello', value: { protocolVersion: 1, workerId: this.id, bootId: this.id, name: this.id, version: '0', device, modelsOnDisk: [], modelInMemory: '', running: [], labels: {}, jobKinds: ['fine-tune'], slots: 8 } });
    });
    this.beat = setInterval(() => this.say({ $case: 'beat', value: { seq: 0, memoryBytesFree: 2 ** 36, running: this.running === null ? [] : [{ attempt: this.running, step: 0, lastSeq: this.seq }] } }), 5_000);
  }

  private hear(message: NonNullable<fleet.ServerMessage['message']>): void {
    if (message.$case === 'assign' && message.value.attempt !== undefined) this.onAssign({ attempt: message.value.attempt, atMs: wallMs() });
    if (message.$case === 'eventAck') this.onEventAck();
    if (message.$case === 'finishedAck') this.onFinishedAck();
  }

  private say(message: Payload): void {
    this.stream?.write({ message });
  }
}

function bearer(shown: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${shown}`);
  return metadata;
}

import { randomUUID } from 'node:crypto';
import type { ArtifactRef } from '@tunefleet/contracts';
import { newId, type JsonObject } from '@tunefleet/foundation';
import type { AssignmentRecord, BlobStore, Completion, FleetStore, WorkerEvent } from '@tunefleet/ports';
import { until } from '../fleet/testing/fleet-harness';

/** A worker's part played through the record, for tests of what the API shows of a run. */
export class RecordWorker {
  readonly id = newId('worker');
  private readonly sessionId = randomUUID();
  private seq = 0;

  constructor(
    private readonly fleet: FleetStore,
    private readonly blobs: BlobStore,
  ) {}

  /** Registers and takes the job that the control plane's scheduler gives it. */
  async take(jobId: string): Promise<AssignmentRecord> {
    await this.fleet.helloWorker({
      id: this.id,
      bootId: randomUUID(),
      name: `worker-${this.id.slice(-6)}`,
      version: '0.1.0',
      device: { kind: 'cpu', name: 'test', backend: 'none', backendVersion: '0', memoryBytesTotal: 2 ** 40, memoryBytesFree: 2 ** 40, bf16: true, threads: 1 },
      labels: {},
      jobKinds: ['fine-tune', 'eval'],
      modelsOnDisk: ['local/model@r1'],
      modelInMemory: null,
      slots: 1,
      sessionId: this.sessionId,
      replicaId: 'test',
    });
    await this.fleet.setCredit(this.id, this.sessionId, { jobs: 1, modelsOnDisk: ['local/model@r1'], modelInMemory: null });
    await this.fleet.wake('schedule');
    let assigned: AssignmentRecord | undefined;
    await until(`job ${jobId} to be placed`, async () => {
      await this.fleet.touchWorker(this.id, this.sessionId, {});
      assigned = (await this.fleet.listUnacknowledged(this.id)).find(({ job }) => job.id === jobId);
      return assigned !== undefined;
    });
    if (assigned === undefined) throw new Error('unreachable');
    await this.fleet.acknowledge(assigned.key);
    return assigned;
  }

  async say({ key }: AssignmentRecord, ...events: readonly UnnumberedEvent[]): Promise<void> {
    await this.fleet.appendEvents(
      key,
      events.map((event) => ({ ...event, seq: ++this.seq }) as WorkerEvent),
    );
  }

  async store(name: string, content: string): Promise<ArtifactRef> {
    return { name, ...(await this.blobs.put(bytesOf(content), { maxBytes: 1_000_000 })) };
  }

  /** Ends the job well. */
  async complete({ key }: AssignmentRecord, completion: Partial<Completion> & { readonly result: JsonObject }): Promise<void> {
    await this.fleet.complete(key, { artifacts: [], resultFiles: [], messages: ['The job has successfully completed'], ...completion });
  }

  async leave(): Promise<void> {
    await this.fleet.disconnectWorker(this.id, this.sessionId);
  }
}

type Unnumbered<Event> = Event extends WorkerEvent ? Omit<Event, 'seq'> : never;
type UnnumberedEvent = Unnumbered<WorkerEvent>;

async function* bytesOf(content: string): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(Buffer.from(content));
}

export const FINE_TUNE_RESULT: JsonObject = {
  steps: 2,
  trainedTokens: 640,
  lossTokens: 64,
  lossFirst: 2,
  lossLast: 1,
  validLoss: null,
  tokensPerSecond: 320,
  trainSeconds: 2,
  peakRssBytes: 1,
  peakDeviceBytes: 1,
  computeDtype: 'f32',
  trainableParameters: 8,
};

/** Rows that intake takes. */
export function trainingRows(count: number): string {
  return Array.from({ length: count }, (_, i) => `${JSON.stringify({ messages: [{ role: 'user', content: `say ${i}` }, { role: 'assistant', content: String(i) }] })}\n`).join('');
}

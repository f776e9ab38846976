import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { until } from '@tunefleet/testing';
import { LightWorker, wallMs, type Assigned } from './light-worker';
import type { BenchService } from './service';
import { cpuRows, latencyRows, progressOf } from './statistics';
import type { Row } from '../report/row';

interface Sample {
  readonly submitToWorker: number;
  readonly submitToAnswer: number;
  readonly createdToQueued: number;
  readonly queuedToPlaced: number;
  readonly queuedToWorker: number;
}

/** Of a job submitted through the public API while one worker is idle; in turn with what a message takes through bare BullMQ on the same Redis. */
export async function measureLatency(service: BenchService, rounds: number): Promise<Row[]> {
  const [worker] = await LightWorker.connect(service.grpcAddress, 1);
  if (worker === undefined) throw new Error('no worker');
  const peer = await RawBullmq.open(service.redis.url);
  const dispatch = await Dispatch.open(service, worker);
  const [samples, peers]: [Sample[], number[]] = [[], []];
  let [progress, cpu] = [progressOf('submit to worker', rounds), await service.cpuMs()];
  let cpuAfter = cpu;
  try {
    // The first ones only warm up what is compiled and connected on first use.
    for (let round = -5; round < rounds; round++) {
      const [sample, bare] = [await dispatch.once(), await peer.once()];
      if (round < 0) [progress, cpu] = [progressOf('submit to worker', rounds), await service.cpuMs()];
      if (round < 0) continue;
      samples.push(sample);
      peers.push(bare);
      progress(round + 1);
    }
    cpuAfter = await service.cpuMs();
  } finally {
    await peer.close();
    worker.close();
  }
  const of = (key: keyof Sample): number[] => samples.map((sample) => sample[key]);
  return [
    ...latencyRows('submit to worker, idle (peer: bare BullMQ add to process)', of('submitToWorker'), peers),
    ...latencyRows('of it: queued to worker', of('queuedToWorker')),
    ...latencyRows('of it: request to answer', of('submitToAnswer')),
    ...latencyRows('of it: on record to queued (intake: files, model, memory)', of('createdToQueued')),
    ...latencyRows('of it: queued to placed', of('queuedToPlaced')),
    ...cpuRows('a job from submit to its end', cpu, cpuAfter, rounds),
  ];
}

/** One idle worker and jobs for it, one after the other. */
export class Dispatch {
  private assigned: Assigned | null = null;

  private constructor(
    private readonly service: BenchService,
    private readonly worker: LightWorker,
    private readonly file: string,
  ) {
    worker.onAssign = (assigned) => (this.assigned = assigned);
  }

  static async open(service: BenchService, worker: LightWorker): Promise<Dispatch> {
    const content = Array.from({ length: 10 }, (_, index) => JSON.stringify({ messages: [{ role: 'user', content: `What is ${index}?` }, { role: 'assistant', content: `${index}` }] })).join('\n');
    const { id } = await service.client.files.upload({ filename: 'rows.jsonl', content, purpose: 'fine-tune' });
    return new Dispatch(service, worker, id);
  }

  async once(priority = 0): Promise<Sample> {
    const { service, worker } = this;
    worker.credit();
    await until('the worker to be idle', async () => (await service.one<{ credit: number }>('select credit from worker where id = $1', [worker.id])).credit === 1);
    this.assigned = null;
    const submittedMs = wallMs();
    const { id } = await service.client.fineTuning.jobs.create({ model: service.model, training_file: this.file, priority });
    const answeredMs = wallMs();
    await until('the assignment', () => this.assigned !== null);
    const { attempt, atMs } = this.assigned as unknown as Assigned;
    if (attempt.jobId !== id) throw new Error(`expected ${id}, got ${attempt.jobId}`);
    worker.accept(attempt);
    await worker.finish(attempt);
    const at = await service.one<Record<'created' | 'queued' | 'placed', number>>(
      `select extract(epoch from j.created_at)::float8 * 1000 as created, extract(epoch from e.created_at)::float8 * 1000 as queued, extract(epoch from a.assigned_at)::float8 * 1000 as placed
       from job j join attempt a on a.job_id = j.id join job_event e on e.job_id = j.id and e.message like 'Files validated%' where j.id = $1`,
      [id],
    );
    return { submitToWorker: atMs - submittedMs, submitToAnswer: answeredMs - submittedMs, createdToQueued: at.queued - at.created, queuedToPlaced: at.placed - at.queued, queuedToWorker: atMs - at.queued };
  }
}

/** A message through BullMQ and nothing else. */
class RawBullmq {
  private received: () => void = () => undefined;
  private worker: Worker | null = null;

  private constructor(
    private readonly queue: Queue,
    private readonly connections: readonly Redis[],
  ) {}

  static async open(url: string): Promise<RawBullmq> {
    const connect = (): Redis => new Redis(url, { maxRetriesPerRequest: null });
    const [forQueue, forWorker] = [connect(), connect()];
    const bare = new RawBullmq(new Queue('bare', { connection: forQueue }), [forQueue, forWorker]);
    bare.worker = new Worker('bare', () => Promise.resolve(bare.received()), { connection: forWorker });
    await Promise.all([bare.queue.waitUntilReady(), bare.worker.waitUntilReady()]);
    return bare;
  }

  once(): Promise<number> {
    const startedAt = performance.now();
    return new Promise((resolve, reject) => {
      this.received = () => resolve(performance.now() - startedAt);
      this.queue.add('bare', {}, { removeOnComplete: true }).catch(reject);
    });
  }

  async close(): Promise<void> {
    await this.worker?.close();
    await this.queue.close();
    for (const connection of this.connections) connection.disconnect();
  }
}

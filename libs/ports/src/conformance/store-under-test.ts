import type { JobKind } from '@tunefleet/contracts';
import type { Placement } from '@tunefleet/domain-scheduling';
import { newId, type JsonObject } from '@tunefleet/foundation';
import type { AttemptKey, FleetStore, WorkerHello } from '../fleet-store';
import type { Outbox } from '../outbox';
import type { JobAdmission, NewJob, RecordStore } from '../record-store';
import type { AttemptRecord } from '../records';

/** One record through its three ports, with nothing in it. */
export interface StoreUnderTest {
  readonly records: RecordStore;
  readonly fleet: FleetStore;
  readonly outbox: Outbox;
  close(): Promise<void>;
}

export const LEASE_MS = 600_000;
/** Over as soon as the database clock is read again. */
export const NO_LEASE_MS = 0;

/** The short steps that the tests are made of. */
export class StoreSteps {
  private constructor(
    readonly store: StoreUnderTest,
    readonly teamId: string,
  ) {}

  static async of(store: StoreUnderTest): Promise<StoreSteps> {
    return new StoreSteps(store, (await store.records.ensureTeam('team')).id);
  }

  async create(changes: Partial<NewJob> = {}): Promise<string> {
    const kind: JobKind = changes.kind ?? 'fine-tune';
    const id = newId(kind === 'eval' ? 'evalJob' : 'fineTuningJob');
    const { job } = await this.store.records.createJob({ id, teamId: this.teamId, kind, spec: {}, baseModel: 'base@r1', metadata: null, priority: 0, queue: kind === 'eval' ? 'eval' : 'tune', ...changes });
    return job.id;
  }

  admit(id: string, workerSpec: JsonObject = {}, changes: Partial<JobAdmission> = {}): Promise<boolean> {
    return this.store.records.admitJob(id, { spec: {}, workerSpec, totalSteps: 10, memoryBytesEstimate: 1000, trainingDatasetId: null, validationDatasetId: null, ...changes });
  }

  async queued(changes: Partial<NewJob> = {}, workerSpec: JsonObject = {}): Promise<string> {
    const id = await this.create(changes);
    await this.admit(id, workerSpec);
    return id;
  }

  /** A worker with one job's credit. @returns its session */
  async worker(id: string, changes: Partial<WorkerHello> = {}): Promise<string> {
    const sessionId = changes.sessionId ?? `session-${id}`;
    await this.store.fleet.helloWorker({
      id,
      bootId: 'boot-1',
      name: id,
      version: '1',
      device: { kind: 'cpu', name: 'cpu', backend: 'test', backendVersion: '1', memoryBytesTotal: 4000, memoryBytesFree: 2000, bf16: false, threads: 1 },
      labels: {},
      jobKinds: ['fine-tune', 'eval'],
      modelsOnDisk: [],
      modelInMemory: null,
      slots: 1,
      replicaId: 'replica',
      ...changes,
      sessionId,
    });
    await this.credit(id, sessionId);
    return sessionId;
  }

  credit(id: string, sessionId = `session-${id}`, jobs = 1): Promise<boolean> {
    return this.store.fleet.setCredit(id, sessionId, { jobs, modelsOnDisk: ['base@r1'], modelInMemory: null });
  }

  /** As the scheduler would: from what the snapshot says of both. */
  async placement(jobId: string, workerId: string, besideJobIds: readonly string[] = []): Promise<Placement> {
    const { jobs, workers } = await this.store.fleet.schedulingSnapshot(100);
    const [job, worker] = [jobs.find(({ id }) => id === jobId), workers.find(({ id }) => id === workerId)];
    if (job === undefined || worker === undefined) throw new Error(`the snapshot lacks ${job === undefined ? jobId : workerId}`);
    return { jobId, jobEpoch: job.epoch, workerId, workerBootId: worker.bootId, workerSessionId: worker.sessionId, workerSlots: worker.slots, resumeCheckpointId: job.resumeCheckpointId, besideJobIds };
  }

  /** A new attempt of a queued job, not acknowledged yet. */
  async assigned(jobId: string, workerId: string, leaseMs = LEASE_MS): Promise<AttemptKey> {
    const attempt = await this.store.fleet.place(await this.placement(jobId, workerId), leaseMs);
    if (attempt === null) throw new Error(`could not place ${jobId} on ${workerId}`);
    return keyOf(attempt);
  }

  async running(jobId: string, workerId: string, leaseMs = LEASE_MS): Promise<AttemptKey> {
    const key = await this.assigned(jobId, workerId, leaseMs);
    await this.store.fleet.acknowledge(key);
    return key;
  }

  async status(jobId: string): Promise<string | undefined> {
    return (await this.store.fleet.getJob(jobId))?.status;
  }

  /** Oldest first. */
  async messages(jobId: string): Promise<string[]> {
    return (await this.store.records.listEvents(jobId, { limit: 100 })).items.map((event) => event.message).reverse();
  }
}

export function keyOf(attempt: AttemptRecord): AttemptKey {
  return { jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch };
}

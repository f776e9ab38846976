import { randomUUID } from 'node:crypto';
import { newId } from '@tunefleet/foundation';
import type { AttemptKey, WorkerEvent } from '@tunefleet/ports';
import type { Store } from '@tunefleet/store-prisma';

/** Where the job stands when the race begins. */
export type Start = 'queued' | 'requeued' | 'assigned' | 'running' | 'expired' | 'pausing' | 'draining' | 'paused' | 'rerun' | 'cancelled';

export interface SceneWorker {
  readonly id: string;
  readonly bootId: string;
  readonly sessionId: string;
}

/** One job and what is around it, fresh for every race. */
export interface Scene {
  readonly start: Start;
  readonly teamId: string;
  readonly teamName: string;
  readonly jobId: string;
  /** The job's, when the race begins. */
  readonly epoch: number;
  /** The first has the job, if any has. All say they could take more. */
  readonly workers: readonly [SceneWorker, ...SceneWorker[]];
  /** The open attempt. */
  readonly key: AttemptKey | null;
  /** An attempt that the record has ended while its worker does not know. */
  readonly zombie: AttemptKey | null;
  /** Waits, too. Null where no operation has to do with it. */
  readonly otherJobId: string | null;
  /** Wait for a place beside the job; so. */
  readonly joinerIds: readonly [string, string] | null;
  /** Events that are stored. */
  readonly lastSeq: number;
}

/** All jobs could share a worker, and a second one still fits. */
export const SLOTS = 2;

/** Longer than any run: a copied scene has the times of its original. */
export const LEASE_MS = 12 * 3_600_000;
const STORED = 3;
/** The first attempt's lease is over as soon as it is placed. */
const ENDS_AT_ONCE: readonly Start[] = ['expired', 'requeued', 'rerun'];

/** @param withOthers also a second worker and a second job */
export async function setScene(store: Store, start: Start, withOthers: boolean): Promise<Scene> {
  const { records, fleet } = store;
  const { id: teamId, name: teamName } = await records.ensureTeam(newId('team'));
  const jobId = await queuedJob(store, teamId);
  const workers = withOthers ? ([await worker(store), await worker(store)] as const) : ([await worker(store)] as const);
  const scene: Scene = { start, teamId, teamName, jobId, workers, otherJobId: withOthers ? await queuedJob(store, teamId) : null, joinerIds: withOthers ? [await queuedJob(store, teamId), await queuedJob(store, teamId)] : null, epoch: 0, key: null, zombie: null, lastSeq: 0 };
  if (start === 'queued') return scene;
  if (start === 'paused') {
    await records.pauseJob(teamId, jobId, LEASE_MS);
    return scene;
  }
  const key = await place(store, { jobId, epoch: 0, worker: workers[0], leaseMs: ENDS_AT_ONCE.includes(start) ? 0 : LEASE_MS });
  await credit(store, workers[0]);
  if (start === 'assigned') return { ...scene, epoch: 1, key };
  await fleet.acknowledge(key);
  await fleet.appendEvents(key, stepEvents(key.epoch, 1, STORED));
  const running = { ...scene, epoch: 1, key, lastSeq: STORED };
  switch (start) {
    case 'running':
    case 'expired':
      return running;
    case 'pausing':
      await records.pauseJob(teamId, jobId, LEASE_MS);
      return running;
    case 'draining':
      await fleet.requestStop(key, 'drained', LEASE_MS);
      return running;
    case 'cancelled':
      await records.cancelJob(teamId, jobId);
      return { ...running, epoch: 2 };
    case 'requeued':
    case 'rerun':
      await fleet.endAttempt(key, { outcome: 'lost', failure: null, after: { then: 'retry', counts: 'infrastructure', delayMs: 0 } });
      if (start === 'requeued') return { ...scene, epoch: 1, zombie: key, lastSeq: STORED };
      return { ...scene, epoch: 2, zombie: key, key: await rerun(store, jobId, workers[0]), lastSeq: STORED };
  }
}

/** Numbered by the steps: event `n` tells step `n`, with a value that names the epoch. */
export function stepEvents(epoch: number, from: number, to: number): WorkerEvent[] {
  return Array.from({ length: to - from + 1 }, (_, index) => ({ seq: from + index, type: 'metrics', step: from + index, values: { train_loss: valueOf(epoch, from + index) } }));
}

export const valueOf = (epoch: number, step: number): number => epoch * 1_000 + step;

export function hello(store: Store, { id, bootId, sessionId }: SceneWorker): Promise<unknown> {
  return store.fleet.helloWorker({
    ...{ id, bootId, sessionId, name: id, version: '1', labels: {}, jobKinds: ['fine-tune'], modelsOnDisk: [], modelInMemory: null, slots: SLOTS, replicaId: 'replica' },
    device: { kind: 'cpu', name: 'cpu', backend: 'none', backendVersion: '0', memoryBytesTotal: 4000, memoryBytesFree: 4000, bf16: false, threads: 1 },
  });
}

async function rerun(store: Store, jobId: string, onto: SceneWorker): Promise<AttemptKey> {
  const key = await place(store, { jobId, epoch: 1, worker: onto, leaseMs: LEASE_MS });
  await credit(store, onto);
  await store.fleet.acknowledge(key);
  await store.fleet.appendEvents(key, stepEvents(key.epoch, 1, STORED));
  return key;
}

async function queuedJob({ records }: Store, teamId: string): Promise<string> {
  const id = newId('fineTuningJob');
  await records.createJob({ id, teamId, kind: 'fine-tune', spec: {}, baseModel: 'base@r1', metadata: null, priority: 0, queue: 'tune' });
  await records.admitJob(id, { spec: {}, workerSpec: {}, totalSteps: 10, memoryBytesEstimate: 1000, sharing: { key: 'base r1', memoryBytes: 100 }, trainingDatasetId: null, validationDatasetId: null });
  return id;
}

async function worker(store: Store): Promise<SceneWorker> {
  const made = { id: newId('worker'), bootId: 'boot-1', sessionId: randomUUID() };
  await hello(store, made);
  await credit(store, made);
  return made;
}

function credit({ fleet }: Store, { id, sessionId }: SceneWorker): Promise<boolean> {
  return fleet.setCredit(id, sessionId, { jobs: SLOTS, modelsOnDisk: [], modelInMemory: null });
}

async function place({ fleet }: Store, { jobId, epoch, worker: { id, bootId, sessionId }, leaseMs }: { readonly jobId: string; readonly epoch: number; readonly worker: SceneWorker; readonly leaseMs: number }): Promise<AttemptKey> {
  const attempt = await fleet.place({ jobId, jobEpoch: epoch, workerId: id, workerBootId: bootId, workerSessionId: sessionId, workerSlots: SLOTS, resumeCheckpointId: null, besideJobIds: [] }, leaseMs);
  if (attempt === null) throw new Error(`the scene could not be set: ${jobId} was not placed`);
  return { jobId, attemptId: attempt.id, epoch: attempt.epoch };
}

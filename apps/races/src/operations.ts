import { randomUUID } from 'node:crypto';
import type { Failure } from '@tunefleet/contracts';
import { errorCode, newId, silentLogger } from '@tunefleet/foundation';
import type { AttemptKey, AttemptRecord, FencedResult } from '@tunefleet/ports';
import type { Store } from '@tunefleet/store-prisma';
import { AttemptEndings } from '../../control-plane/src/fleet/attempt-endings';
import type { Hold } from './holds';
import { hello, LEASE_MS, SLOTS, stepEvents, type Scene, type Start } from './scene';

/** `stale`: whoever asked was told that it came too late. `refused`: that the job is in no state for it. */
export type Said = 'applied' | 'stale' | 'refused';

export interface Operation {
  readonly name: string;
  /** Where it has something to do. */
  readonly starts: readonly Start[];
  /** Locks on its way. */
  readonly holds: readonly Hold[];
  /** It takes another worker or another job. */
  readonly withOthers?: true;
  /** @param variant in [0, 1): which of its forms    @returns also `of`: in whose name a worker spoke */
  readonly run: (store: Store, scene: Scene, variant: number) => Promise<{ readonly said: Said; readonly of?: AttemptKey; readonly made?: string; readonly besideJobIds?: readonly string[] }>;
}

const OPEN: readonly Start[] = ['assigned', 'running', 'expired', 'pausing', 'draining', 'rerun', 'cancelled'];
const TOLD: readonly Start[] = ['running', 'pausing', 'draining', 'rerun', 'requeued', 'cancelled'];
const ANY: readonly Start[] = ['queued', 'requeued', 'assigned', 'running', 'pausing', 'draining', 'paused', 'rerun'];
const endsAttempt: readonly Hold[] = ['job row', 'attempt row', 'attempt writes', 'usage row', 'usage writes', 'job writes', 'event writes'];

const lost: Failure = { class: 'infrastructure', code: 'worker_lost', message: 'the worker was not heard from', param: null, logTail: [] };
const wrong: Failure = { class: 'user', code: 'numerical', message: 'loss is not finite', param: null, logTail: [] };
export const DONE = 'the race is done';

/** Everything that may happen to a job while something else does, as the product does it. */
export const operations: readonly Operation[] = [
  { name: 'assign', starts: ['queued', 'requeued', 'running', 'paused'], holds: ['worker row', 'job row', 'attempt writes', 'job writes', 'worker writes', 'event writes'], withOthers: true, run: assign },
  { name: 'join', starts: ['queued', 'requeued', ...OPEN], holds: ['worker row', 'attempt writes', 'job writes', 'worker writes', 'event writes'], withOthers: true, run: join },
  worker('acknowledge', ['assigned', 'rerun'], ['job row', 'attempt row', 'attempt writes'], ({ fleet }, key) => fleet.acknowledge(key)),
  worker('revoke', ['assigned', 'running', 'pausing'], ['job row', 'attempt row', 'attempt writes', 'job writes', 'event writes'], ({ fleet }, key) => fleet.revoke(key, 'busy')),
  worker('renew', OPEN, ['attempt row', 'attempt writes'], ({ fleet }, key) => fleet.renewLease(key, LEASE_MS)),
  { name: 'expire', starts: ['expired'], holds: endsAttempt, run: async (store, scene) => spoke(scene.key, (key) => endingsOf(store).failed(key, lost, 'lost')) },
  { name: 'cancel', starts: ANY, holds: ['job row', 'job writes', 'event writes'], run: (store, { teamId, jobId }) => asked(store.records.cancelJob(teamId, jobId)) },
  { name: 'pause', starts: ANY, holds: ['job row', 'job writes', 'attempt writes', 'event writes'], run: (store, { teamId, jobId }) => asked(store.records.pauseJob(teamId, jobId, LEASE_MS)) },
  { name: 'resume', starts: ['paused', 'pausing'], holds: ['job row', 'job writes', 'event writes'], run: (store, { teamId, jobId }) => asked(store.records.resumeJob(teamId, jobId)) },
  { name: 'report', starts: TOLD, holds: ['job row', 'attempt row', 'metric writes', 'event writes', 'attempt writes'], run: report },
  worker('complete', TOLD, endsAttempt, ({ fleet }, key) =>
    fleet.complete(key, {
      result: { loss: 1 },
      artifacts: [],
      adapter: { name: `ft:base:race::${key.jobId.slice(-12)}`, baseModel: 'base', baseRevision: 'r1', tunerKind: 'lora' },
      resultFiles: [{ filename: 'metrics.csv', bytes: 1, sha256: 'c'.repeat(64) }],
      messages: [DONE],
    }),
  ),
  worker('fail', TOLD, endsAttempt, (store, key) => endingsOf(store).failed(key, wrong, 'failed')),
  worker('hand back', [...TOLD, 'pausing', 'draining'], endsAttempt, (store, key) => endingsOf(store).stopped(key, 'preempted')),
  { name: 'drain', starts: ['running', 'assigned', 'pausing', 'queued'], holds: ['worker row', 'worker writes', 'job row', 'attempt writes', 'job writes', 'event writes'], run: drain },
  { name: 'preempt', starts: ['running', 'rerun', 'pausing'], holds: ['worker row', 'job row', 'attempt writes', 'job writes', 'event writes'], withOthers: true, run: preempt },
  { name: 'reboot', starts: ['running', 'assigned', 'pausing', 'queued'], holds: ['worker row', 'worker writes', 'job row', 'attempt row', 'attempt writes', 'job writes'], run: reboot },
  { name: 'depend', starts: ANY, holds: ['job writes', 'event writes'], run: depend },
];

/** What a worker says, of its attempt or of one that it does not know to be over. */
function worker(name: string, starts: readonly Start[], holds: readonly Hold[], say: (store: Store, key: AttemptKey) => Promise<FencedResult>): Operation {
  return { name, starts, holds, run: (store, scene, variant) => spoke(voiceOf(scene, variant), (key) => say(store, key)) };
}

function voiceOf({ key, zombie }: Scene, variant: number): AttemptKey | null {
  return zombie !== null && variant < 0.5 ? zombie : (key ?? zombie);
}

async function spoke(of: AttemptKey | null, say: (key: AttemptKey) => Promise<FencedResult>): ReturnType<Operation['run']> {
  if (of === null) return { said: 'stale' };
  try {
    return { said: await say(of), of };
  } catch (error) {
    // A stale close meets an attempt that runs again: `closeAttempt` leaves it alone.
    if (errorCode(error) === 'conflict') return { said: 'stale', of };
    throw error;
  }
}

async function asked(change: Promise<unknown>): ReturnType<Operation['run']> {
  try {
    return { said: (await change) === null ? 'stale' : 'applied' };
  } catch (error) {
    if (errorCode(error) === 'illegal_transition') return { said: 'refused' };
    throw error;
  }
}

/** The job on either worker, or the other job on the first one. */
async function assign({ fleet }: Store, { jobId, epoch, otherJobId, workers }: Scene, variant: number): ReturnType<Operation['run']> {
  const onto = (variant < 0.3 ? workers[1] : undefined) ?? workers[0];
  const what = variant < 0.7 || otherJobId === null ? { jobId, jobEpoch: epoch } : { jobId: otherJobId, jobEpoch: 0 };
  const attempt: AttemptRecord | null = await fleet.place({ ...what, workerId: onto.id, workerBootId: onto.bootId, workerSessionId: onto.sessionId, workerSlots: SLOTS, resumeCheckpointId: null, besideJobIds: [] }, LEASE_MS);
  return attempt === null ? { said: 'stale' } : { said: 'applied', made: attempt.id };
}

/** A job to a place beside this one, which it knows to be there; in some forms it also knows of the other that wants one. */
async function join({ fleet }: Store, { jobId, joinerIds, workers: [onto] }: Scene, variant: number): ReturnType<Operation['run']> {
  const [one, other] = variant < 0.5 ? (joinerIds ?? []) : [...(joinerIds ?? [])].reverse();
  if (one === undefined || other === undefined) return { said: 'stale' };
  const besideJobIds = variant % 0.5 < 0.25 ? [jobId] : [jobId, other];
  const attempt = await fleet.place({ jobId: one, jobEpoch: 0, workerId: onto.id, workerBootId: onto.bootId, workerSessionId: onto.sessionId, workerSlots: SLOTS, resumeCheckpointId: null, besideJobIds }, LEASE_MS);
  return attempt === null ? { said: 'stale' } : { said: 'applied', made: attempt.id, besideJobIds };
}

/** The next steps; in one form with some that are stored already, as after a lost acknowledgement. */
function report({ fleet }: Store, scene: Scene, variant: number): ReturnType<Operation['run']> {
  const from = variant % 0.5 < 0.2 ? 2 : scene.lastSeq + 1;
  return spoke(voiceOf(scene, variant), async (key) => {
    const next = scene.lastSeq + 3;
    const checkpoint = { seq: next + 1, type: 'checkpoint', step: next, artifacts: [], metrics: {} } as const;
    return (await fleet.appendEvents(key, [...stepEvents(key.epoch, from, next), checkpoint])).result;
  });
}

async function drain({ records }: Store, { workers }: Scene): ReturnType<Operation['run']> {
  await records.drainWorker(workers[0].id, { mode: 'move', graceMs: LEASE_MS });
  return { said: 'applied' };
}

function preempt({ fleet }: Store, { key, otherJobId, workers }: Scene): ReturnType<Operation['run']> {
  return spoke(key, (victim) => fleet.preempt({ victims: [victim], workerId: workers[0].id, forJobId: otherJobId ?? '', deadlineMs: LEASE_MS }));
}

/** The worker's process comes back, and its session ends what the earlier one had. */
async function reboot(store: Store, { workers: [first] }: Scene): ReturnType<Operation['run']> {
  await hello(store, { ...first, bootId: 'boot-2', sessionId: randomUUID() });
  for (const { jobId, id, epoch, workerBootId } of await store.fleet.listLiveAttempts(first.id)) {
    if (workerBootId !== 'boot-2') await spoke({ jobId, attemptId: id, epoch }, (key) => endingsOf(store).failed(key, lost, 'lost'));
  }
  return { said: 'applied' };
}

/** A job that is to run after this one. */
async function depend({ records }: Store, { teamId, jobId }: Scene): ReturnType<Operation['run']> {
  const id = newId('fineTuningJob');
  try {
    await records.createJob({ id, teamId, kind: 'fine-tune', spec: {}, baseModel: 'base@r1', metadata: null, priority: 0, queue: 'tune', afterJobIds: [jobId] });
    return { said: 'applied', made: id };
  } catch (error) {
    if (errorCode(error) === 'invalid_input') return { said: 'refused' };
    throw error;
  }
}

function endingsOf({ fleet, records }: Store): AttemptEndings {
  return new AttemptEndings({ fleet, records, blobs: { put: noBlobs, stat: noBlobs }, resultCsv: () => '', logger: silentLogger });
}

/** Only a completion stores files, and that is given them here. */
function noBlobs(): Promise<never> {
  return Promise.reject(new Error('no operation of a race stores blobs'));
}

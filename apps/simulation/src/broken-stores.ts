import type { Placement } from '@tunefleet/domain-scheduling';
import type { AttemptRecord } from '@tunefleet/ports';
import type { JobRow, MemoryStore } from '@tunefleet/testing/store-memory';
import type { Scenario } from './scenario';

/** Stores that break one rule each, and what a checker has to say of it. */
export interface BrokenStore {
  readonly name: string;
  readonly seen: RegExp;
  /** Where the rule has its occasion sooner. */
  readonly scenario?: Partial<Scenario>;
  readonly sabotage: (store: MemoryStore) => void;
}

/** More jobs than workers, on two models, nearly all of which may share. */
export const SHARED: Partial<Scenario> = { sharing: { slotsMax: 4, teams: 1, jobs: 0.9 }, models: 2, jobsPerSecond: 0.2 };

export const brokenStores: readonly BrokenStore[] = [
  {
    name: 'takes what a worker tells of an epoch that is over',
    seen: /was told in epoch|had ended|stored for/,
    sabotage: ({ fleet, tables }) => {
      const { appendEvents } = fleet;
      // So that assignments are taken back while their workers are at work, and nobody tells these.
      fleet.acknowledge = async () => 'applied';
      fleet.renewLease = async () => 'applied';
      fleet.listLiveAttempts = async (workerId) => tables.attemptsOn(workerId);
      fleet.appendEvents = (key, events) => {
        const live = tables.liveOf(key.jobId);
        if (live === undefined || live.id === key.attemptId) return appendEvents(key, events);
        return appendEvents(
          { jobId: live.jobId, attemptId: live.id, epoch: live.epoch },
          events.map((event, index) => ({ ...event, seq: live.lastSeq + 1 + index })),
        );
      };
    },
  },
  {
    name: 'places without looking whether the worker is free',
    seen: /while it has not finished/,
    sabotage: ({ fleet, tables }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, workers: seen.workers.map((worker) => ({ ...worker, busy: false, credit: 1 })) };
      };
      fleet.place = async (placement) => placeBlindly(tables, placement, 0);
    },
  },
  {
    name: 'gives a worker more jobs than it has slots',
    seen: /of \d slots got the attempt/,
    scenario: SHARED,
    sabotage: ({ fleet, tables }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, workers: seen.workers.map((worker) => ({ ...worker, slots: 64, credit: 64 })) };
      };
      fleet.place = async (placement) => placeBlindly(tables, placement, freeSlot(tables, placement));
    },
  },
  {
    name: 'puts jobs beside those of another key',
    seen: /got the attempt .* of key .* beside/,
    scenario: SHARED,
    sabotage: ({ fleet, tables }) => {
      const { schedulingSnapshot } = fleet;
      const shared = { shareKey: 'all', sharedMemoryBytes: 1 };
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, jobs: seen.jobs.map((job) => ({ ...job, ...shared })), running: seen.running.map((job) => ({ ...job, ...shared })) };
      };
      fleet.place = async (placement) => placeBlindly(tables, placement, freeSlot(tables, placement));
    },
  },
  {
    name: 'takes it that a job beside others adds nothing',
    seen: / and .* need .* bytes and were placed on/,
    scenario: SHARED,
    sabotage: ({ fleet }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, jobs: seen.jobs.map((job) => ({ ...job, sharedMemoryBytes: 0 })), running: seen.running.map((job) => ({ ...job, sharedMemoryBytes: 0 })) };
      };
    },
  },
  {
    name: 'lets jobs come to those that make room',
    seen: /make room there/,
    scenario: SHARED,
    sabotage: ({ fleet, tables }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, running: seen.running.map((job) => ({ ...job, stopping: false, preemptedForJobId: null })) };
      };
      // All make room from the start, so that there is an occasion soon.
      fleet.place = async (placement) => placeBlindly(tables, placement, freeSlot(tables, placement), { preemptedForJobId: placement.jobId });
    },
  },
  {
    name: 'charges each for all of the time that several had a worker',
    seen: /were charged for .* s of workers that had attempts for/,
    scenario: SHARED,
    sabotage: ({ fleet, tables }) => {
      const { endAttempt, complete } = fleet;
      const charge = (attemptId: string): void => {
        const attempt = tables.attempts.get(attemptId);
        const teamId = tables.jobs.get(attempt?.jobId ?? '')?.teamId ?? '';
        const usage = tables.usage.get(teamId);
        if (attempt?.finishedAt == null || usage === undefined) return;
        tables.usage.set(teamId, { ...usage, monthGpuSeconds: usage.monthGpuSeconds + (attempt.finishedAt.getTime() - attempt.assignedAt.getTime()) / 1000 });
      };
      fleet.endAttempt = async (key, end) => {
        const result = await endAttempt(key, end);
        if (result === 'applied') charge(key.attemptId);
        return result;
      };
      fleet.complete = async (key, completion) => {
        const result = await complete(key, completion);
        if (result === 'applied') charge(key.attemptId);
        return result;
      };
    },
  },
  {
    name: 'gives two workers the same job',
    seen: /while .* is live/,
    sabotage: ({ fleet, tables }) => {
      const { place } = fleet;
      fleet.place = async (placement, leaseMs) => {
        const attempt = await place(placement, leaseMs);
        const other = [...tables.workers.keys()].find((id) => tables.liveOn(id).length === 0);
        if (attempt !== null && other !== undefined) tables.putAttempt({ ...attempt, id: tables.newId('attempt'), workerId: other, epoch: attempt.epoch + 1 });
        return attempt;
      };
    },
  },
  {
    name: 'starts an attempt without a new epoch',
    seen: /has the epoch|the epoch of .* fell/,
    sabotage: ({ fleet, tables }) => {
      const { place } = fleet;
      fleet.place = (placement, leaseMs) => {
        tables.changeJob(placement.jobId, { epoch: placement.jobEpoch - 1 });
        return place({ ...placement, jobEpoch: placement.jobEpoch - 1 }, leaseMs);
      };
    },
  },
  {
    name: 'lets a result undo a cancel',
    seen: /had cancelled and became|the epoch of .* fell/,
    sabotage: ({ records, tables }) => {
      const { cancelJob } = records;
      records.cancelJob = async (teamId, id) => {
        const cancelled = await cancelJob(teamId, id);
        if (cancelled?.status === 'cancelled') tables.changeJob(id, { status: 'queued' });
        return cancelled;
      };
    },
  },
  {
    name: 'loses points of a batch',
    seen: /after step|without its step/,
    sabotage: ({ fleet }) => {
      const { appendEvents } = fleet;
      fleet.appendEvents = (key, events) =>
        appendEvents(
          key,
          events.map((event) => (event.type === 'metrics' && event.step === 2 ? { seq: event.seq, type: 'log', level: 'info', message: 'lost', data: null } : event)),
        );
    },
  },
  {
    name: 'stores a batch that comes again again',
    seen: /was stored twice|events of .* went back|after step/,
    sabotage: ({ fleet, tables }) => {
      const { appendEvents } = fleet;
      fleet.appendEvents = (key, events) => {
        const first = events[0]?.seq ?? 1;
        if (tables.liveOf(key.jobId)?.id === key.attemptId) tables.changeAttempt(key.attemptId, { lastSeq: first - 1 });
        return appendEvents(key, events);
      };
    },
  },
  {
    name: 'knows nothing of memory',
    seen: /need .* bytes and were placed on/,
    scenario: { jobsPerSecond: 0.5 },
    sabotage: ({ fleet }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, jobs: seen.jobs.map((job) => ({ ...job, memoryBytesEstimate: 0 })) };
      };
    },
  },
  {
    name: 'tells waiting jobs nothing',
    seen: /without a reason/,
    sabotage: ({ fleet }) => {
      fleet.noteWaiting = async () => undefined;
    },
  },
  {
    name: 'hides the queue from the scheduler',
    seen: /no scheduler has looked at/,
    sabotage: ({ fleet }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => ({ ...(await schedulingSnapshot(limit)), jobs: [] });
    },
  },
  {
    name: 'forgets its messages to the queue, and which jobs still wait for them',
    seen: /never ended: validating_files/,
    scenario: { activeMs: 300_000, settleMs: 300_000 },
    sabotage: ({ outbox, records }) => {
      outbox.relay = async () => 0;
      records.listUnvalidatedJobs = async () => [];
    },
  },
  {
    name: 'never says that anything is stale',
    seen: /works on .* after that attempt was closed/,
    sabotage: ({ fleet, access, tables }) => {
      const { appendEvents } = fleet;
      // So that assignments are taken back while their workers are at work.
      fleet.acknowledge = async () => 'applied';
      fleet.renewLease = async () => 'applied';
      access.isHeldBy = async () => true;
      access.noteUpload = async () => true;
      fleet.listLiveAttempts = async (workerId) => tables.attemptsOn(workerId);
      fleet.appendEvents = async (key, events) => ({ result: 'applied', lastSeq: Math.max((await appendEvents(key, events)).lastSeq, events.at(-1)?.seq ?? 0) });
    },
  },
  {
    name: 'bars a revoked worker and leaves it its job',
    seen: /is still open on .*, which was revoked/,
    sabotage: ({ access, tables }) => {
      access.revokeWorker = async (workerId) => {
        const credential = tables.credentials.get(workerId);
        if (credential !== undefined) tables.credentials.set(workerId, { ...credential, revokedAt: tables.now() });
        tables.changeWorker(workerId, { sessionId: null });
        return { worker: null, releasedJobs: 0 };
      };
    },
  },
  {
    name: 'lets a revoked worker come back',
    seen: /the revoked worker .* has the session/,
    sabotage: ({ access, fleet, tables }) => {
      const { helloWorker } = fleet;
      const { getCredential } = access;
      access.getCredential = async (workerId) => {
        const credential = await getCredential(workerId);
        return credential === null ? null : { ...credential, revokedAt: null };
      };
      fleet.helloWorker = async (hello) => {
        const credential = tables.credentials.get(hello.id);
        if (credential === undefined) return helloWorker(hello);
        tables.credentials.set(hello.id, { ...credential, revokedAt: null });
        await helloWorker(hello);
        tables.credentials.set(hello.id, credential);
        tables.changeWorker(hello.id, { sessionId: hello.sessionId });
        return tables.workers.get(hello.id) as NonNullable<ReturnType<typeof tables.workers.get>>;
      };
    },
  },
  {
    name: 'says that there always was a control plane',
    seen: /its worker had no time to come back/,
    scenario: { outagesPerSecond: 0.02 },
    sabotage: ({ fleet }) => {
      fleet.keepWatch = async () => Infinity;
    },
  },
  {
    name: 'says that every job has run for an hour',
    seen: /of grace/,
    sabotage: ({ fleet }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, running: seen.running.map((job) => ({ ...job, assignedAtMs: job.assignedAtMs - 3_600_000, estimatedFinishMs: null, secondsEstimate: 36_000 })) };
      };
    },
  },
  {
    name: 'makes one team look as if it had had everything',
    seen: /has waited .* min for a worker while others got/,
    scenario: { workers: 3, jobsPerSecond: 0.07, jobs: { stepsMax: 20, stepMsMax: 30_000, dependent: 0, ranked: 0 }, userActsPerSecond: 0, faultsPerSecond: 0, outagesPerSecond: 0 },
    sabotage: ({ fleet }) => {
      const { schedulingSnapshot } = fleet;
      fleet.schedulingSnapshot = async (limit) => {
        const seen = await schedulingSnapshot(limit);
        return { ...seen, teams: seen.teams.map((team, index) => (index === 0 ? { ...team, decayedGpuSeconds: 1e12 } : team)) };
      };
    },
  },
];

function placeBlindly(tables: MemoryStore['tables'], { jobId, workerId, workerBootId }: Placement, slot: number, changes: Partial<AttemptRecord> = {}): AttemptRecord | null {
  const job = tables.jobs.get(jobId) as JobRow;
  if (job.status !== 'queued') return null;
  const attempt = { ...blankAttempt(tables), jobId, workerId, workerBootId, slot, epoch: job.epoch + 1, ...changes };
  tables.changeJob(jobId, { status: 'running', epoch: attempt.epoch });
  tables.putAttempt(attempt);
  return attempt;
}

function freeSlot(tables: MemoryStore['tables'], { workerId }: Placement): number {
  const taken = new Set(tables.liveOn(workerId).map(({ slot }) => slot));
  let slot = 0;
  while (taken.has(slot)) slot++;
  return slot;
}

function blankAttempt(tables: MemoryStore['tables']): AttemptRecord {
  return {
    ...{ id: tables.newId('attempt'), jobId: '', epoch: 0, workerId: '', workerBootId: '', status: 'assigned', outcome: null, leaseExpiresAt: new Date(tables.nowMs() + 30_000), resumeCheckpointId: null },
    ...{ slot: 0, lastSeq: 0, failure: null, stopReason: null, preemptedForJobId: null, step: 0, steppedAt: null, microBatchSize: null, stuckAt: null, assignedAt: tables.now(), acknowledgedAt: null, finishedAt: null },
  };
}

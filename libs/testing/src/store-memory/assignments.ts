import { statusAfterStop } from '@tunefleet/domain-jobs';
import type { AttemptRecord, FleetStore, JobRecord, WorkerRecord } from '@tunefleet/ports';
import { say } from './events';
import { fenceOf } from './fence';
import { readSnapshot } from './snapshot';
import { jobRecordOf, type JobRow, type Tables } from './tables';

type AssignmentMethods = Pick<
  FleetStore,
  | 'schedulingSnapshot'
  | 'place'
  | 'noteWaiting'
  | 'listUnacknowledged'
  | 'listLiveAttempts'
  | 'acknowledge'
  | 'revoke'
  | 'renewLease'
  | 'isLive'
  | 'keepWatch'
  | 'listExpired'
  | 'listUnacknowledgedOlderThan'
  | 'latestCheckpoint'
  | 'getJob'
>;

const START_TOLERANCE_MS = 15_000;

export function assignmentMethods(tables: Tables): AssignmentMethods {
  const withJobs = (attempts: readonly AttemptRecord[]): { attempt: AttemptRecord; job: JobRecord }[] =>
    attempts.map((attempt) => ({ attempt, job: jobRecordOf(tables.jobs.get(attempt.jobId) as JobRow) }));
  return {
    schedulingSnapshot: async (limit) => readSnapshot(tables, limit),

    place: async (placement, leaseMs) => {
      const worker = tables.workers.get(placement.workerId);
      const job = tables.jobs.get(placement.jobId);
      const nowMs = tables.nowMs();
      if (worker?.sessionId !== placement.workerSessionId || worker.bootId !== placement.workerBootId || worker.status !== 'online' || worker.cordoned || worker.credit <= 0) return null;
      if (job?.status !== 'queued' || job.epoch !== placement.jobEpoch || (job.notBefore?.getTime() ?? 0) > nowMs) return null;
      const slot = freeSlot(tables, worker, job, placement.besideJobIds);
      if (slot === null || tables.liveOf(job.id) !== undefined) return null;
      const attempt: AttemptRecord = {
        id: tables.newId('attempt'),
        jobId: job.id,
        epoch: job.epoch + 1,
        workerId: worker.id,
        workerBootId: worker.bootId,
        slot,
        status: 'assigned',
        outcome: null,
        leaseExpiresAt: new Date(nowMs + leaseMs),
        resumeCheckpointId: placement.resumeCheckpointId,
        lastSeq: 0,
        failure: null,
        stopReason: null,
        preemptedForJobId: null,
        step: 0,
        steppedAt: null,
        microBatchSize: null,
        stuckAt: null,
        assignedAt: new Date(nowMs),
        acknowledgedAt: null,
        finishedAt: null,
      };
      tables.changeJob(job.id, {
        ...{ status: 'running', epoch: attempt.epoch, startedAt: job.startedAt ?? new Date(nowMs), notBefore: null },
        ...{ waitingReason: null, waitingCode: null, queuePosition: null, estimatedStart: null, localitySince: null },
      });
      tables.putAttempt(attempt);
      tables.changeWorker(worker.id, { credit: worker.credit - 1 });
      say(tables, job.id, job.startedAt !== null ? `Job started again on worker ${worker.name}` : `Job started on worker ${worker.name}`);
      tables.announce(`worker:${worker.id}`);
      return attempt;
    },

    noteWaiting: async (waiting) => {
      for (const [id, { code, text, position, estimatedStartMs }] of waiting) {
        const job = tables.jobs.get(id);
        if (job?.status !== 'queued') continue;
        const movedMs = Math.abs((job.estimatedStart?.getTime() ?? 0) - (estimatedStartMs ?? 0));
        if (job.waitingCode === code && job.waitingReason === text && job.queuePosition === position && movedMs <= START_TOLERANCE_MS) continue;
        tables.changeJob(id, {
          waitingCode: code,
          waitingReason: text,
          queuePosition: position,
          estimatedStart: estimatedStartMs === null ? null : new Date(estimatedStartMs),
          localitySince: code === 'model_locality' ? (job.localitySince ?? tables.now()) : job.localitySince,
        });
      }
    },

    listUnacknowledged: async (workerId, leaseMs = 0) =>
      tables.liveOn(workerId).flatMap((attempt) => {
        const job = tables.jobs.get(attempt.jobId) as JobRow;
        const isOwed = attempt.status === 'assigned' && job.status === 'running' && job.stopReason === null && job.epoch === attempt.epoch;
        if (!isOwed || tables.workers.get(workerId)?.bootId !== attempt.workerBootId) return [];
        renew(tables, attempt, leaseMs);
        const resume = attempt.resumeCheckpointId === null ? null : (tables.checkpoints.get(attempt.resumeCheckpointId) ?? null);
        return [{ key: { jobId: job.id, attemptId: attempt.id, epoch: attempt.epoch }, job: jobRecordOf(job), resume }];
      }),

    listLiveAttempts: async (workerId) => tables.liveOn(workerId),

    acknowledge: async (key, leaseMs = 0) => {
      const fence = fenceOf(tables, key);
      if (fence?.live !== true) return 'stale';
      renew(tables, fence.attempt, leaseMs);
      if (fence.attempt.status === 'assigned') tables.changeAttempt(key.attemptId, { status: 'running', acknowledgedAt: tables.now() });
      return 'applied';
    },

    revoke: async (key, reason) => {
      const fence = fenceOf(tables, key);
      if (fence === null || fence.finished) return fence?.attempt.outcome === 'revoked' ? 'applied' : 'stale';
      tables.changeAttempt(key.attemptId, { status: 'finished', outcome: 'revoked', finishedAt: tables.now() });
      tables.announce('schedule');
      if (!fence.live) return 'stale';
      const status = statusAfterStop(fence.job.stopReason);
      tables.changeJob(key.jobId, { status, stopReason: null, stopDeadline: null });
      say(tables, key.jobId, `The worker did not take the job (${reason}); it is ${status === 'paused' ? 'paused' : 'back in the queue'}`, 'warn');
      return 'applied';
    },

    renewLease: async (key, leaseMs) => {
      const fence = fenceOf(tables, key);
      if (fence?.live !== true) return 'stale';
      renew(tables, fence.attempt, leaseMs);
      return 'applied';
    },

    isLive: async (key) => fenceOf(tables, key)?.live === true,

    keepWatch: async (gapMs) => {
      const nowMs = tables.nowMs();
      const { sinceMs, lastMs } = tables.watch;
      tables.watch = { sinceMs: nowMs - lastMs > gapMs ? nowMs : sinceMs, lastMs: nowMs };
      return nowMs - tables.watch.sinceMs;
    },

    listExpired: async (limit) => {
      const nowMs = tables.nowMs();
      const expired = tables.liveAttempts().filter(({ leaseExpiresAt }) => leaseExpiresAt.getTime() <= nowMs);
      return withJobs(expired.sort((a, b) => a.leaseExpiresAt.getTime() - b.leaseExpiresAt.getTime()).slice(0, limit));
    },

    listUnacknowledgedOlderThan: async (ms, limit) => {
      const beforeMs = tables.nowMs() - ms;
      return withJobs(tables.liveAttempts().filter(({ status, assignedAt }) => status === 'assigned' && assignedAt.getTime() < beforeMs).slice(0, limit));
    },

    latestCheckpoint: async (jobId) => tables.checkpointsOf(jobId)[0] ?? null,

    getJob: async (id) => {
      const job = tables.jobs.get(id);
      return job === undefined ? null : jobRecordOf(job);
    },
  };
}

/** The lowest, if all that are there may run beside the job. */
function freeSlot(tables: Tables, worker: WorkerRecord, { shareKey }: JobRow, besideJobIds: readonly string[]): number | null {
  const live = tables.liveOn(worker.id);
  const isWelcome = live.every(
    ({ jobId, preemptedForJobId }) => besideJobIds.includes(jobId) && preemptedForJobId === null && shareKey !== null && tables.jobs.get(jobId)?.shareKey === shareKey,
  );
  if (!isWelcome || live.length >= worker.slots) return null;
  for (let slot = 0; slot < worker.slots; slot++) if (live.every((attempt) => attempt.slot !== slot)) return slot;
  return null;
}

/** Never shortens. */
function renew(tables: Tables, { id, leaseExpiresAt }: AttemptRecord, leaseMs: number): void {
  tables.changeAttempt(id, { leaseExpiresAt: new Date(Math.max(leaseExpiresAt.getTime(), tables.nowMs() + leaseMs)) });
}

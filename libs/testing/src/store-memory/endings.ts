import { statusAfterStop, stopReasonTexts } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { AttemptKey, AttemptOutcome, FencedResult, FleetStore } from '@tunefleet/ports';
import { skipDependents } from './dependents';
import { insertEvents, say } from './events';
import { fenceOf, type Fence } from './fence';
import { storable, storableFailure } from './storable';
import type { Tables } from './tables';
import { chargeUsage, keepMeasurement } from './usage';

type EndingMethods = Pick<FleetStore, 'complete' | 'endAttempt' | 'closeAttempt'>;
type End = Parameters<FleetStore['endAttempt']>[1];

const ENDED = { estimatedFinish: null, waitingReason: null, stopReason: null, stopDeadline: null } as const;

export function endingMethods(tables: Tables): EndingMethods {
  return {
    complete: async (key, completion) => {
      const fence = fenceOf(tables, key);
      if (fence === null) return 'stale';
      if (fence.finished) return fence.attempt.outcome === 'succeeded' ? 'applied' : 'stale';
      if (!fence.live) return staleEnd(tables, key, fence);
      const files = completion.resultFiles.map((file) => ({
        ...{ id: tables.newId('file'), teamId: fence.job.teamId, filename: file.filename, purpose: `${fence.job.kind}-results`, bytes: file.bytes, sha256: file.sha256 },
        ...{ status: 'processed' as const, statusDetails: null, expiresAt: null, createdAt: tables.now(), deletedAt: null },
      }));
      for (const file of files) tables.files.set(file.id, file);
      if (completion.adapter !== undefined) {
        const id = tables.newId('adapter');
        tables.adapters.set(id, { ...completion.adapter, id, teamId: fence.job.teamId, jobId: key.jobId, artifacts: completion.artifacts, createdAt: tables.now(), deletedAt: null });
      }
      tables.changeJob(key.jobId, { ...ENDED, status: 'succeeded', result: storable(completion.result), resultFileIds: files.map(({ id }) => id), finishedAt: tables.now() });
      finishAttempt(tables, key, 'succeeded', null);
      insertEvents(tables, key.jobId, completion.messages.map((message) => ({ level: 'info' as const, type: 'message' as const, message })));
      const ended = tables.attempts.get(key.attemptId);
      if (ended !== undefined) keepMeasurement(tables, ended, completion.result);
      return 'applied';
    },

    endAttempt: async (key, end) => endAttempt(tables, key, end),

    closeAttempt: async (key, outcome) => {
      const fence = fenceOf(tables, key);
      if (fence === null || fence.finished) return;
      if (fence.live) throw new TunefleetError('conflict', `attempt ${key.attemptId} still runs its job`);
      finishAttempt(tables, key, outcome, null);
    },
  };
}

export function endAttempt(tables: Tables, key: AttemptKey, end: End): FencedResult {
  const fence = fenceOf(tables, key);
  if (fence === null) return 'stale';
  if (fence.finished) return fence.attempt.outcome === end.outcome ? 'applied' : 'stale';
  // The lease was renewed between the look and the verdict: the attempt is not lost.
  if (end.outcome === 'lost' && !fence.abandoned) return 'stale';
  if (!fence.live) return staleEnd(tables, key, fence, end.outcome);
  finishAttempt(tables, key, end.outcome, end.failure);
  if (end.after.then === 'retry') requeue(tables, key, end, fence);
  else failJob(tables, key, end);
  return 'applied';
}

function staleEnd(tables: Tables, key: AttemptKey, fence: Fence, outcome: AttemptOutcome = 'stopped'): FencedResult {
  if (!fence.finished) finishAttempt(tables, key, outcome === 'lost' ? 'lost' : 'stopped', null);
  return 'stale';
}

function finishAttempt(tables: Tables, key: AttemptKey, outcome: AttemptOutcome, failure: End['failure']): void {
  tables.changeAttempt(key.attemptId, { status: 'finished', outcome, failure: failure === null ? null : storableFailure(failure), finishedAt: tables.now() });
  const ended = tables.attempts.get(key.attemptId);
  if (ended !== undefined) chargeUsage(tables, ended);
  tables.announce('schedule');
}

/** Back to the queue with its place kept, or aside when the user wants it paused. */
function requeue(tables: Tables, key: AttemptKey, end: End, { job }: Fence): void {
  if (end.after.then !== 'retry') return;
  const { counts, delayMs, specPatch } = end.after;
  const status = statusAfterStop(job.stopReason);
  tables.changeJob(key.jobId, {
    ...{ status, stopReason: null, stopDeadline: null, estimatedFinish: null, tokensPerSecond: null },
    infraFailures: job.infraFailures + (counts === 'infrastructure' ? 1 : 0),
    resourceFailures: job.resourceFailures + (counts === 'resource' ? 1 : 0),
    notBefore: new Date(tables.nowMs() + delayMs),
    workerSpec: { ...job.workerSpec, ...specPatch },
  });
  if (end.outcome === 'stopped' && status === 'paused') return say(tables, key.jobId, `Job paused after step ${job.step}`);
  const why = end.failure?.message ?? (job.stopReason === null ? '' : stopReasonTexts[job.stopReason]);
  say(tables, key.jobId, `attempt ${key.epoch} ${end.outcome}: ${why}; the job ${status === 'paused' ? 'is paused' : 'may start again'}`, end.failure === null ? 'info' : 'warn');
}

function failJob(tables: Tables, key: AttemptKey, end: End): void {
  const failure = end.failure ?? { class: 'platform' as const, code: end.outcome, message: `attempt ${key.epoch} ${end.outcome} without saying why`, param: null, logTail: [] };
  tables.changeJob(key.jobId, { ...ENDED, status: 'failed', error: storableFailure(failure), finishedAt: tables.now() });
  say(tables, key.jobId, failure.message, 'error', { code: failure.code, class: failure.class });
  skipDependents(tables, key.jobId);
}

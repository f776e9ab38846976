import { statusAfterStop, stopReasonTexts } from '@tunefleet/domain-jobs';
import { TunefleetError, newId } from '@tunefleet/foundation';
import type { AfterFailure, AttemptKey, AttemptOutcome, Completion, FencedResult, FleetStore } from '@tunefleet/ports';
import { databaseTime, inMs } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { announce } from '../database/wake-channel';
import { Prisma } from '../generated/client';
import { skipDependents } from '../records/dependents';
import { insertEvents, type NewEvent } from '../records/job-events';
import { failureJson, jsonText, toJson } from '../records/mapping';
import { lockFence, type Fence } from './fence';
import { keepMeasurement } from './measurements';
import { chargeUsage } from './usage';
import { appendEvents } from './worker-events';

type EndingMethods = Pick<FleetStore, 'appendEvents' | 'complete' | 'endAttempt' | 'closeAttempt'>;
type End = Parameters<FleetStore['endAttempt']>[1];

export function endingMethods(db: Database): EndingMethods {
  return {
    appendEvents: (key, events) => db.transaction((tx) => appendEvents(tx, key, events)),
    complete: (key, completion) => db.transaction((tx) => complete(tx, key, completion)),
    endAttempt: (key, end) => db.transaction((tx) => endAttempt(tx, key, end)),
    closeAttempt: (key, outcome) =>
      db.transaction(async (tx) => {
        const fence = await lockFence(tx, key);
        if (fence === null || fence.finished) return;
        if (fence.live) {
          throw new TunefleetError('conflict', `attempt ${key.attemptId} still runs its job: end it with what shall become of the job`, { details: { ...key } });
        }
        await finishAttempt(tx, key, outcome, null);
      }),
  };
}

/** The terminal transaction. A repeat of what was applied already is answered as the first time. */
async function complete(tx: Transaction, key: AttemptKey, completion: Completion): Promise<FencedResult> {
  const fence = await lockFence(tx, key);
  if (fence === null) return 'stale';
  if (fence.finished) return fence.outcome === 'succeeded' ? 'applied' : 'stale';
  if (!fence.live) return staleEnd(tx, key, fence);

  const now = await databaseTime(tx);
  const files = completion.resultFiles.map((file) => ({
    id: newId('file'),
    teamId: fence.teamId,
    filename: file.filename,
    // `fine-tune-results`, `eval-results`: every kind's results have the kind's name.
    purpose: `${fence.jobKind}-results`,
    bytes: BigInt(file.bytes),
    sha256: file.sha256,
    status: 'processed',
  }));
  if (files.length > 0) await tx.file.createMany({ data: files });
  if (completion.adapter) {
    await tx.adapter.create({
      data: { ...completion.adapter, id: newId('adapter'), teamId: fence.teamId, jobId: key.jobId, artifacts: toJson(completion.artifacts) },
    });
  }
  await tx.job.update({
    where: { id: key.jobId },
    data: {
      status: 'succeeded',
      result: toJson(completion.result),
      resultFileIds: files.map(({ id }) => id),
      finishedAt: now,
      estimatedFinish: null,
      waitingReason: null,
      stopReason: null,
      stopDeadline: null,
    },
  });
  await finishAttempt(tx, key, 'succeeded', null);
  await insertEvents(tx, key.jobId, completion.messages.map((message) => ({ level: 'info' as const, type: 'message' as const, message })));
  await keepMeasurement(tx, key.attemptId, completion.result);
  return 'applied';
}

export async function endAttempt(tx: Transaction, key: AttemptKey, end: End): Promise<FencedResult> {
  const fence = await lockFence(tx, key);
  if (fence === null) return 'stale';
  if (fence.finished) return fence.outcome === end.outcome ? 'applied' : 'stale';
  // The lease was renewed between the look and the verdict: the attempt is not lost.
  if (end.outcome === 'lost' && !fence.abandoned) return 'stale';
  if (!fence.live) return staleEnd(tx, key, fence, end.outcome);

  await finishAttempt(tx, key, end.outcome, end.failure);
  switch (end.after.then) {
    case 'retry':
      await requeue(tx, key, { end, after: end.after, fence });
      return 'applied';
    case 'fail':
      await failJob(tx, key, end);
      return 'applied';
  }
}

/** The worker reports the end of something that is no longer its to end: nothing of it counts, but the worker is free. */
async function staleEnd(tx: Transaction, key: AttemptKey, fence: Fence, outcome: AttemptOutcome = 'stopped'): Promise<FencedResult> {
  if (!fence.finished) await finishAttempt(tx, key, outcome === 'lost' ? 'lost' : 'stopped', null);
  return 'stale';
}

async function finishAttempt(tx: Transaction, key: AttemptKey, outcome: AttemptOutcome, failure: End['failure']): Promise<void> {
  await tx.attempt.update({
    where: { id: key.attemptId },
    data: { status: 'finished', outcome, failure: failure === null ? Prisma.DbNull : failureJson(failure), finishedAt: await databaseTime(tx) },
  });
  await chargeUsage(tx, key.attemptId);
  await announce(tx, 'schedule');
}

interface Requeue {
  readonly end: End;
  readonly after: Extract<AfterFailure, { then: 'retry' }>;
  readonly fence: Fence;
}

/** Back to the queue, or aside when the user wants it paused. */
async function requeue(tx: Transaction, key: AttemptKey, { end, after, fence }: Requeue): Promise<void> {
  const status = statusAfterStop(fence.stopReason);
  // The place in the queue (`queued_at`) is kept: a job that lost its worker does not start over behind the others.
  await tx.$executeRaw`
    update job set status = ${status}, stop_reason = null, stop_deadline = null,
      infra_failures = infra_failures + ${after.counts === 'infrastructure' ? 1 : 0},
      resource_failures = resource_failures + ${after.counts === 'resource' ? 1 : 0},
      not_before = ${inMs(after.delayMs)},
      worker_spec = worker_spec || ${jsonText(after.specPatch ?? {})}::jsonb,
      estimated_finish = null, tokens_per_second = null
    where id = ${key.jobId}`;
  await insertEvents(tx, key.jobId, [requeueEvent(key, { end, after, fence })]);
}

function requeueEvent({ epoch }: AttemptKey, { end, after, fence: { stopReason, step } }: Requeue): NewEvent {
  const paused = statusAfterStop(stopReason) === 'paused';
  if (end.outcome === 'stopped' && paused) return { level: 'info', type: 'message', message: `Job paused after step ${step}` };
  const why = end.failure?.message ?? (stopReason === null ? null : stopReasonTexts[stopReason]);
  const what = `attempt ${epoch} ${end.outcome === 'failed' ? 'failed' : `was ${end.outcome}`}${why === null ? '' : `: ${why}`}`;
  const when = after.delayMs > 0 ? `in ${Math.ceil(after.delayMs / 1000)} s` : 'at once';
  return { level: end.failure === null ? 'info' : 'warn', type: 'message', message: `${what}; ${paused ? 'the job is paused' : `the job may start again ${when}`}` };
}

async function failJob(tx: Transaction, key: AttemptKey, end: End): Promise<void> {
  const failure = end.failure ?? { class: 'platform' as const, code: end.outcome, message: `attempt ${key.epoch} ${end.outcome} without saying why`, param: null, logTail: [] };
  await tx.job.update({
    where: { id: key.jobId },
    data: {
      status: 'failed',
      error: failureJson(failure),
      finishedAt: await databaseTime(tx),
      estimatedFinish: null,
      waitingReason: null,
      stopReason: null,
      stopDeadline: null,
    },
  });
  await insertEvents(tx, key.jobId, [{ level: 'error', type: 'message', message: failure.message, data: { code: failure.code, class: failure.class } }]);
  await skipDependents(tx, key.jobId);
}

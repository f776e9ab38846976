import { statusAfterStop, stopReasonTexts } from '@tunefleet/domain-jobs';
import { TunefleetError, newId } from '@tunefleet/foundation';
import type { AfterFailure, AttemptKey, AttemptOutcome, Completion, FencedResult, FleetStore } from '@tunefleet/ports';
import { inMs } from '../database/clock';
import type { Database } from '../database/database';
import type { Statements } from '../database/statements';
import { announcement } from '../database/wake-channel';
import { skipDependents } from '../records/dependents';
import { insertEvents, type NewEvent } from '../records/job-events';
import { boundedFailure, jsonText } from '../records/mapping';
import { Prisma } from '../generated/client';
import { lockWorkerTime } from './charged-seconds';
import { lockFence, type Fence } from './fence';
import { keepMeasurement } from './measurements';
import { chargeUsage } from './usage';
import { appendEvents } from './worker-events';

type EndingMethods = Pick<FleetStore, 'appendEvents' | 'complete' | 'endAttempt' | 'closeAttempt'>;
type End = Parameters<FleetStore['endAttempt']>[1];

export function endingMethods(db: Database): EndingMethods {
  return {
    appendEvents: (key, events) => db.atomically((tx) => appendEvents(tx, key, events)),
    complete: (key, completion) => db.atomically((tx) => complete(tx, key, completion)),
    endAttempt: (key, end) => db.atomically((tx) => endAttempt(tx, key, end)),
    closeAttempt: (key, outcome) =>
      db.atomically(async (tx) => {
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
async function complete(tx: Statements, key: AttemptKey, completion: Completion): Promise<FencedResult> {
  const fence = await lockFence(tx, key);
  if (fence === null) return 'stale';
  if (fence.finished) return fence.outcome === 'succeeded' ? 'applied' : 'stale';
  if (!fence.live) return staleEnd(tx, key, fence);

  const files = completion.resultFiles.map((file) => ({ ...file, id: newId('file') }));
  if (files.length > 0) {
    // `fine-tune-results`, `eval-results`: every kind's results have the kind's name.
    await tx.$executeRaw`
      insert into file (id, team_id, filename, purpose, bytes, sha256, status)
      select f.id, ${fence.teamId}, f.filename, ${`${fence.jobKind}-results`}, f.bytes, f.sha256, 'processed'
      from jsonb_to_recordset(${jsonText(files)}::jsonb) as f (id text, filename text, bytes bigint, sha256 text)`;
  }
  if (completion.adapter) {
    const { name, baseModel, baseRevision, tunerKind } = completion.adapter;
    await tx.$executeRaw`
      insert into adapter (id, team_id, job_id, name, base_model, base_revision, tuner_kind, artifacts)
      values (${newId('adapter')}, ${fence.teamId}, ${key.jobId}, ${name}, ${baseModel}, ${baseRevision}, ${tunerKind}, ${jsonText(completion.artifacts)}::jsonb)`;
  }
  await tx.$executeRaw`
    update job set status = 'succeeded', result = ${jsonText(completion.result)}::jsonb, result_file_ids = ${files.map(({ id }) => id)}::text[], finished_at = clock_timestamp(),
      estimated_finish = null, waiting_reason = null, stop_reason = null, stop_deadline = null
    where id = ${key.jobId}`;
  await finishAttempt(tx, key, 'succeeded', null);
  await insertEvents(tx, key.jobId, completion.messages.map((message) => ({ level: 'info' as const, type: 'message' as const, message })));
  await keepMeasurement(tx, key.attemptId, completion.result);
  return 'applied';
}

export async function endAttempt(tx: Statements, key: AttemptKey, end: End): Promise<FencedResult> {
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
async function staleEnd(tx: Statements, key: AttemptKey, fence: Fence, outcome: AttemptOutcome = 'stopped'): Promise<FencedResult> {
  if (!fence.finished) await finishAttempt(tx, key, outcome === 'lost' ? 'lost' : 'stopped', null);
  return 'stale';
}

async function finishAttempt(tx: Statements, key: AttemptKey, outcome: AttemptOutcome, failure: End['failure']): Promise<void> {
  await tx.$executeRaw`
    with mine as materialized (select worker_id, ${lockWorkerTime(Prisma.sql`worker_id`)} from attempt where id = ${key.attemptId})
    update attempt set status = 'finished', outcome = ${outcome}, failure = ${failure === null ? null : jsonText(boundedFailure(failure))}::jsonb, finished_at = clock_timestamp()
    from mine where id = ${key.attemptId}
    returning ${announcement('schedule')}::text`;
  await chargeUsage(tx, key.attemptId);
}

interface Requeue {
  readonly end: End;
  readonly after: Extract<AfterFailure, { then: 'retry' }>;
  readonly fence: Fence;
}

/** Back to the queue, or aside when the user wants it paused. */
async function requeue(tx: Statements, key: AttemptKey, { end, after, fence }: Requeue): Promise<void> {
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

async function failJob(tx: Statements, key: AttemptKey, end: End): Promise<void> {
  const failure = end.failure ?? { class: 'platform' as const, code: end.outcome, message: `attempt ${key.epoch} ${end.outcome} without saying why`, param: null, logTail: [] };
  await tx.$executeRaw`
    update job set status = 'failed', error = ${jsonText(boundedFailure(failure))}::jsonb, finished_at = clock_timestamp(),
      estimated_finish = null, waiting_reason = null, stop_reason = null, stop_deadline = null
    where id = ${key.jobId}`;
  await insertEvents(tx, key.jobId, [{ level: 'error', type: 'message', message: failure.message, data: { code: failure.code, class: failure.class } }]);
  await skipDependents(tx, key.jobId);
}

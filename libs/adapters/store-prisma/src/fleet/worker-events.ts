import { stuckMark } from '@tunefleet/domain-jobs';
import { TunefleetError, newId, type JsonObject } from '@tunefleet/foundation';
import type { AttemptKey, FencedResult, WorkerEvent } from '@tunefleet/ports';
import type { Statements } from '../database/statements';
import { insertEvents, type NewEvent } from '../records/job-events';
import { jsonText, plainText } from '../records/mapping';
import { lockFence, type Fence } from './fence';

/**
 * Stores a batch exactly once: what is beyond the attempt's last sequence number is applied in one transaction under the
 * attempt's lock, what is not has been seen before.
 * @throws conflict when numbers are missing between what is stored and what came; `details.lastSeq` says where to go on
 */
export async function appendEvents(tx: Statements, key: AttemptKey, events: readonly WorkerEvent[]): Promise<{ result: FencedResult; lastSeq: number }> {
  const fence = await lockFence(tx, key);
  if (fence === null) return { result: 'stale', lastSeq: 0 };
  if (!fence.live) return { result: 'stale', lastSeq: fence.lastSeq };
  const fresh = events.filter((event) => event.seq > fence.lastSeq);
  const last = fresh.at(-1);
  if (last === undefined) return { result: 'applied', lastSeq: fence.lastSeq };
  refuseGaps(key, fence.lastSeq, fresh);

  const newSteps = await storeMetrics(tx, key, fresh);
  await storeCheckpoints(tx, key, fresh);
  await insertEvents(tx, key.jobId, fresh.flatMap((event) => jobEvents(event, fence, newSteps)));
  await storeProgress(tx, key, fresh);
  await storePosition(tx, key, fresh, last.seq);
  return { result: 'applied', lastSeq: last.seq };
}

function refuseGaps(key: AttemptKey, lastSeq: number, fresh: readonly WorkerEvent[]): void {
  fresh.forEach((event, index) => {
    const expected = lastSeq + 1 + index;
    if (event.seq !== expected) {
      throw new TunefleetError('conflict', `attempt ${key.attemptId}: expected event ${expected}, got ${event.seq}; send again from ${lastSeq + 1} on`, {
        reason: 'event_gap',
        details: { lastSeq, expected, got: event.seq },
      });
    }
  });
}

/** @returns the steps that had no metric stored before; a resumed attempt repeats steps, and only the first telling becomes an event */
async function storeMetrics(tx: Statements, key: AttemptKey, fresh: readonly WorkerEvent[]): Promise<ReadonlySet<number>> {
  // Within a batch the last value of a metric at a step wins, as it would in two batches.
  const points = new Map<string, { name: string; step: number; value: number }>();
  for (const event of fresh) {
    if (event.type !== 'metrics') continue;
    for (const [name, value] of Object.entries(event.values)) points.set(`${event.step} ${name}`, { name: plainText(name), step: event.step, value });
  }
  if (points.size === 0) return new Set();
  const rows = [...points.values()];
  // Values go as text: JSON and Prisma know no NaN and no infinity, PostgreSQL does.
  const stored = await tx.$queryRaw<{ step: number; inserted: boolean }[]>`
    with stored as (
      insert into metric_point (job_id, name, step, value, epoch)
      select ${key.jobId}, p.name, p.step, p.value::float8, ${key.epoch}
      from unnest(${rows.map((row) => row.name)}::text[], ${rows.map((row) => row.step)}::int[], ${rows.map((row) => String(row.value))}::text[]) as p (name, step, value)
      on conflict (job_id, name, step) do update set value = excluded.value, epoch = excluded.epoch, created_at = clock_timestamp()
      returning step, xmax = 0 as inserted)
    select step, bool_or(inserted) as inserted from stored group by step`;
  return new Set(stored.filter((row) => row.inserted).map((row) => row.step));
}

async function storeCheckpoints(tx: Statements, key: AttemptKey, fresh: readonly WorkerEvent[]): Promise<void> {
  for (const event of fresh) {
    if (event.type !== 'checkpoint') continue;
    await tx.$executeRaw`
      insert into checkpoint (id, job_id, attempt_id, epoch, step, artifacts, metrics)
      values (${newId('checkpoint')}, ${key.jobId}, ${key.attemptId}, ${key.epoch}, ${event.step},
        ${jsonText(event.artifacts)}::jsonb, ${jsonText(event.metrics)}::jsonb)
      on conflict (job_id, step) do update set
        attempt_id = excluded.attempt_id, epoch = excluded.epoch, artifacts = excluded.artifacts, metrics = excluded.metrics, created_at = excluded.created_at`;
  }
}

function jobEvents(event: WorkerEvent, fence: Fence, newSteps: ReadonlySet<number>): readonly NewEvent[] {
  switch (event.type) {
    case 'log':
      return [{ level: event.level, type: 'message', message: event.message, data: event.data }];
    case 'metrics':
      return newSteps.has(event.step) ? [metricsEvent(event.step, fence.totalSteps, event.values)] : [];
    case 'checkpoint':
      return [{ level: 'info', type: 'message', message: `Checkpoint created at step ${event.step}`, data: { step: event.step } }];
    case 'progress':
      return [];
  }
}

function metricsEvent(step: number, totalSteps: number | null, values: Readonly<Record<string, number>>): NewEvent {
  const loss = values['train_loss'];
  const label = totalSteps === null ? `Step ${step}` : `Step ${step}/${totalSteps}`;
  const data: JsonObject = { ...values, step, ...(totalSteps === null ? {} : { total_steps: totalSteps }) };
  return { level: 'info', type: 'metrics', message: loss === undefined ? label : `${label}: training loss=${loss.toFixed(4)}`, data };
}

async function storeProgress(tx: Statements, key: AttemptKey, fresh: readonly WorkerEvent[]): Promise<void> {
  const progress = fresh.findLast((event) => event.type === 'progress');
  if (progress === undefined || progress.type !== 'progress') return;
  const etaSeconds = Number.isFinite(progress.etaSeconds) && progress.etaSeconds > 0 ? Math.min(progress.etaSeconds, ETA_SECONDS_MAX) : null;
  await tx.$executeRaw`
    update job set step = ${progress.step}, total_steps = coalesce(nullif(${progress.totalSteps}::int, 0), total_steps), phase = ${plainText(progress.phase)},
      tokens_per_second = ${String(progress.tokensPerSecond)}::text::float8,
      estimated_finish = clock_timestamp() + make_interval(secs => ${etaSeconds}::float8)
    where id = ${key.jobId}`;
}

/** Where the attempt is: what the watchdog looks at and its history shows. */
async function storePosition(tx: Statements, key: AttemptKey, fresh: readonly WorkerEvent[], lastSeq: number): Promise<void> {
  const step = Math.max(0, ...fresh.map((event) => (event.type === 'log' ? 0 : event.step)));
  const microBatchSize = fresh.findLast((event) => event.type === 'progress' && event.microBatchSize !== undefined);
  const size = microBatchSize?.type === 'progress' ? (microBatchSize.microBatchSize ?? null) : null;
  const stuck = stuckMark(fresh.flatMap((event) => (event.type === 'log' ? [event.data] : [])));
  await tx.$executeRaw`
    update attempt set last_seq = ${BigInt(lastSeq)}, micro_batch_size = coalesce(${size}::int, micro_batch_size),
      stepped_at = case when ${step}::int > step then clock_timestamp() else stepped_at end,
      stuck_at = case when ${stuck}::boolean then coalesce(stuck_at, clock_timestamp()) when not ${stuck}::boolean or ${step}::int > step then null else stuck_at end, step = greatest(step, ${step}::int)
    where id = ${key.attemptId}`;
}

/** Ten years: beyond it an estimate says nothing, and dates have an end. */
const ETA_SECONDS_MAX = 315_360_000;

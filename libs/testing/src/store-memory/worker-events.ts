import { stuckMark } from '@tunefleet/domain-jobs';
import { TunefleetError, type JsonObject } from '@tunefleet/foundation';
import type { AttemptKey, FencedResult, FleetStore, WorkerEvent } from '@tunefleet/ports';
import { insertEvents, type NewEvent } from './events';
import { fenceOf } from './fence';
import { plainText } from './storable';
import type { JobRow, Tables } from './tables';

export function workerEventMethods(tables: Tables): Pick<FleetStore, 'appendEvents'> {
  return { appendEvents: async (key, events) => appendEvents(tables, key, events) };
}

function appendEvents(tables: Tables, key: AttemptKey, events: readonly WorkerEvent[]): { result: FencedResult; lastSeq: number } {
  const fence = fenceOf(tables, key);
  if (fence === null) return { result: 'stale', lastSeq: 0 };
  const { lastSeq } = fence.attempt;
  if (!fence.live) return { result: 'stale', lastSeq };
  const fresh = events.filter(({ seq }) => seq > lastSeq);
  const last = fresh.at(-1);
  if (last === undefined) return { result: 'applied', lastSeq };
  fresh.forEach(({ seq }, index) => {
    const expected = lastSeq + 1 + index;
    if (seq !== expected) throw new TunefleetError('conflict', `expected event ${expected}, got ${seq}`, { reason: 'event_gap', details: { lastSeq, expected, got: seq } });
  });
  const newSteps = storeMetrics(tables, key, fresh);
  for (const event of fresh) {
    if (event.type === 'checkpoint') tables.putCheckpoint({ id: tables.newId('checkpoint'), jobId: key.jobId, attemptId: key.attemptId, epoch: key.epoch, step: event.step, artifacts: event.artifacts, metrics: event.metrics, createdAt: tables.now() });
  }
  insertEvents(tables, key.jobId, fresh.flatMap((event) => jobEvents(event, fence.job, newSteps)));
  storeProgress(tables, key, fresh);
  storePosition(tables, key, fresh, last.seq);
  return { result: 'applied', lastSeq: last.seq };
}

function storeMetrics(tables: Tables, key: AttemptKey, fresh: readonly WorkerEvent[]): ReadonlySet<number> {
  const newSteps = new Set<number>();
  for (const event of fresh) {
    if (event.type !== 'metrics') continue;
    for (const [name, value] of Object.entries(event.values)) {
      if (tables.putMetric({ jobId: key.jobId, name: plainText(name), step: event.step, value, epoch: key.epoch, createdAt: tables.now() })) newSteps.add(event.step);
    }
  }
  return newSteps;
}

function jobEvents(event: WorkerEvent, { totalSteps }: JobRow, newSteps: ReadonlySet<number>): readonly NewEvent[] {
  switch (event.type) {
    case 'log':
      return [{ level: event.level, type: 'message', message: event.message, data: event.data }];
    case 'metrics': {
      if (!newSteps.has(event.step)) return [];
      const data: JsonObject = { ...event.values, step: event.step, ...(totalSteps === null ? {} : { total_steps: totalSteps }) };
      return [{ level: 'info', type: 'metrics', message: totalSteps === null ? `Step ${event.step}` : `Step ${event.step}/${totalSteps}`, data }];
    }
    case 'checkpoint':
      return [{ level: 'info', type: 'message', message: `Checkpoint created at step ${event.step}`, data: { step: event.step } }];
    case 'progress':
      return [];
  }
}

function storeProgress(tables: Tables, { jobId }: AttemptKey, fresh: readonly WorkerEvent[]): void {
  const progress = fresh.findLast((event) => event.type === 'progress');
  if (progress?.type !== 'progress') return;
  const { step, totalSteps, phase, tokensPerSecond, etaSeconds } = progress;
  const isKnown = Number.isFinite(etaSeconds) && etaSeconds > 0;
  tables.changeJob(jobId, {
    step,
    phase: plainText(phase),
    tokensPerSecond,
    estimatedFinish: isKnown ? new Date(tables.nowMs() + Math.min(etaSeconds, 315_360_000) * 1000) : null,
    ...(totalSteps > 0 ? { totalSteps } : {}),
  });
}

function storePosition(tables: Tables, key: AttemptKey, fresh: readonly WorkerEvent[], lastSeq: number): void {
  const attempt = tables.attempts.get(key.attemptId);
  if (attempt === undefined) return;
  const step = Math.max(0, ...fresh.map((event) => (event.type === 'log' ? 0 : event.step)));
  const sized = fresh.findLast((event) => event.type === 'progress' && event.microBatchSize !== undefined);
  const stuck = stuckMark(fresh.flatMap((event) => (event.type === 'log' ? [event.data] : [])));
  const stuckAt = stuck === true ? (attempt.stuckAt ?? tables.now()) : stuck === false || step > attempt.step ? null : attempt.stuckAt;
  tables.changeAttempt(key.attemptId, {
    lastSeq,
    stuckAt,
    microBatchSize: (sized?.type === 'progress' ? sized.microBatchSize : undefined) ?? attempt.microBatchSize,
    ...(step > attempt.step ? { step, steppedAt: tables.now() } : {}),
  });
}

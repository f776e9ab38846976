import { stopReasonTexts, type StopReason } from '@tunefleet/domain-jobs';
import type { AttemptKey, FencedResult, FleetStore, StopOrder } from '@tunefleet/ports';
import { inMs } from '../database/clock';
import type { Database } from '../database/database';
import type { Statements } from '../database/statements';
import { announce } from '../database/wake-channel';
import { insertEvents } from '../records/job-events';

type StopMethods = Pick<FleetStore, 'listStopRequests' | 'requestStop' | 'stopDrained'>;

export function stopMethods(db: Database): StopMethods {
  return {
    listStopRequests: (workerId) => db.repeating(() => listStops(db, workerId)),
    requestStop: ({ jobId, epoch }, reason, graceMs) => db.atomically((tx) => requestStop(tx, { id: jobId, epoch }, reason, graceMs)),
    stopDrained: (graceMs) => db.atomically((tx) => stopDrained(tx, graceMs)),
  };
}

interface StopRow {
  readonly job_id: string;
  readonly attempt_id: string;
  readonly epoch: number;
  readonly live: boolean;
  readonly stop_reason: StopReason | null;
  readonly grace_ms: number | null;
}

async function listStops(db: Database, workerId: string): Promise<StopOrder[]> {
  const rows = await db.statements.$queryRaw<StopRow[]>`
    select a.job_id, a.id as attempt_id, a.epoch, j.status = 'running' and j.epoch = a.epoch as live, j.stop_reason,
      greatest(1, extract(epoch from j.stop_deadline - clock_timestamp()) * 1000)::int as grace_ms
    from attempt a join job j on j.id = a.job_id
    where a.worker_id = ${workerId} and a.status <> 'finished' and (j.status <> 'running' or j.epoch <> a.epoch or j.stop_reason is not null)`;
  return rows.map(({ job_id, attempt_id, epoch, live, stop_reason, grace_ms }): StopOrder => {
    const key: AttemptKey = { jobId: job_id, attemptId: attempt_id, epoch };
    if (!live || stop_reason === null) return { key, reason: 'cancelled', graceMs: 0 };
    // Workers know two words for it; what becomes of the job is the record's business.
    return { key, reason: stop_reason === 'paused' ? 'paused' : 'preempted', graceMs: grace_ms ?? 1 };
  });
}

interface JobRow {
  readonly status: string;
  readonly epoch: number;
  readonly stop_reason: StopReason | null;
}

/** Takes the job's lock. A user's pause goes over other reasons, taking it back only over the pause; otherwise the first request stands. */
export async function requestStop(tx: Statements, { id, epoch }: { readonly id: string; readonly epoch: number }, reason: StopReason, graceMs: number): Promise<FencedResult> {
  const [job] = await tx.$queryRaw<JobRow[]>`select status, epoch, stop_reason from job where id = ${id} for no key update`;
  if (job === undefined || job.status !== 'running' || job.epoch !== epoch) return 'stale';
  if (!goesOver(reason, job.stop_reason)) return 'applied';
  await tx.$executeRaw`update job set stop_reason = ${reason}, stop_deadline = coalesce(stop_deadline, ${inMs(graceMs)}) where id = ${id}`;
  const [attempt] = await tx.$queryRaw<{ worker_id: string }[]>`
    update attempt set stop_reason = ${reason} where job_id = ${id} and epoch = ${epoch} and status <> 'finished' returning worker_id`;
  await insertEvents(tx, id, [{ level: 'info', type: 'message', message: `Stopping after a checkpoint: ${stopReasonTexts[reason]}` }]);
  if (attempt !== undefined) await announce(tx, `worker:${attempt.worker_id}`);
  return 'applied';
}

function goesOver(reason: StopReason, current: StopReason | null): boolean {
  if (current === null) return reason !== 'resumed';
  return reason === 'paused' ? current !== 'paused' : reason === 'resumed' && current === 'paused';
}

/** @param workerId only of this worker */
export async function stopDrained(tx: Statements, graceMs: number, workerId?: string): Promise<readonly string[]> {
  const due = await tx.$queryRaw<{ id: string; epoch: number }[]>`
    select j.id, j.epoch from worker w join attempt a on a.worker_id = w.id and a.status <> 'finished' join job j on j.id = a.job_id and j.epoch = a.epoch
    where (w.drain = 'move' or w.drain_deadline <= clock_timestamp()) and j.status = 'running' and j.stop_reason is null
      and (${workerId ?? null}::text is null or w.id = ${workerId ?? null}::text)
    order by j.id`;
  const asked: string[] = [];
  for (const job of due) if ((await requestStop(tx, job, 'drained', graceMs)) === 'applied') asked.push(job.id);
  return asked;
}

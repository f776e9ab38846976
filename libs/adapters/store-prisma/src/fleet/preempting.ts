import type { Preemption } from '@tunefleet/domain-scheduling';
import type { FencedResult } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { isUniqueViolation } from '../database/database-errors';
import type { Statements } from '../database/statements';
import { requestStop } from './stops';

export async function preempt(db: Database, preemption: Preemption): Promise<FencedResult> {
  try {
    return await db.atomically((tx) => ask(tx, preemption));
  } catch (error) {
    // Another replica asked somebody else for the same job: one worker is freed for it.
    if (isUniqueViolation(error)) return 'stale';
    throw error;
  }
}

interface LiveRow {
  readonly attempt_id: string;
  readonly job_id: string;
  readonly epoch: number;
  /** Its job runs it and nobody has asked for it back. */
  readonly may_be_asked: boolean;
}

/** Under the worker's lock, so that nobody comes to it meanwhile; then the jobs', by their ids. */
async function ask(tx: Statements, { victims, workerId, forJobId, deadlineMs }: Preemption): Promise<FencedResult> {
  await tx.$queryRaw`select 1 as locked from worker where id = ${workerId} for no key update`;
  await tx.$queryRaw`select 1 as locked from job where id = any(${[forJobId, ...victims.map(({ jobId }) => jobId)]}::text[]) order by id for no key update`;
  const [waits] = await tx.$queryRaw<unknown[]>`
    select 1 as found from job where id = ${forJobId} and status = 'queued' and not exists (select 1 from attempt where preempted_for_job_id = ${forJobId} and status <> 'finished')`;
  if (waits === undefined) return 'stale';
  const live = await tx.$queryRaw<LiveRow[]>`
    select a.id as attempt_id, a.job_id, a.epoch, j.status = 'running' and j.epoch = a.epoch and j.stop_reason is null as may_be_asked
    from attempt a join job j on j.id = a.job_id where a.worker_id = ${workerId} and a.status <> 'finished' order by a.job_id`;
  const isVictim = ({ attempt_id, epoch }: LiveRow): boolean => victims.some((victim) => victim.attemptId === attempt_id && victim.epoch === epoch);
  const asked = live.filter((row) => row.may_be_asked && isVictim(row));
  if (asked.length === 0 || live.some((row) => row.may_be_asked && !isVictim(row))) return 'stale';
  for (const { attempt_id, job_id, epoch } of asked) {
    await requestStop(tx, { id: job_id, epoch }, 'preempted', deadlineMs);
    await tx.$executeRaw`update attempt set preempted_for_job_id = ${forJobId} where id = ${attempt_id} and status <> 'finished'`;
    await tx.$executeRaw`update job set preemptions = preemptions + 1 where id = ${job_id}`;
  }
  return 'applied';
}

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

async function ask(tx: Statements, { victim, forJobId, deadlineMs }: Preemption): Promise<FencedResult> {
  const [waits] = await tx.$queryRaw<unknown[]>`select 1 as found from job where id = ${forJobId} and status = 'queued'`;
  if (waits === undefined) return 'stale';
  const [running] = await tx.$queryRaw<unknown[]>`
    select 1 as found from job where id = ${victim.jobId} and status = 'running' and epoch = ${victim.epoch} and stop_reason is null for no key update`;
  if (running === undefined) return 'stale';
  if ((await requestStop(tx, { id: victim.jobId, epoch: victim.epoch }, 'preempted', deadlineMs)) === 'stale') return 'stale';
  await tx.$executeRaw`update attempt set preempted_for_job_id = ${forJobId} where id = ${victim.attemptId} and status <> 'finished'`;
  await tx.$executeRaw`update job set preemptions = preemptions + 1 where id = ${victim.jobId}`;
  return 'applied';
}

import type { JobStatus } from '@tunefleet/domain-jobs';
import { isLost, skippedFailure, waitingForParents, type ParentJob } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { Statements } from '../database/statements';
import { Prisma } from '../generated/client';
import { insertEvents } from './job-events';
import { boundedFailure, jsonText } from './mapping';

const waiting = Prisma.sql`('validating_files', 'queued', 'paused')`;

/** True of a job `j` none of whose parents is still to succeed. */
export const isUnblocked = Prisma.sql`(j.after_job_ids = '{}' or not exists (select 1 from job parent where parent.id = any(j.after_job_ids) and parent.status <> 'succeeded'))`;

/**
 * Holds the parents as they are until the new job is visible: whoever ends one afterwards sees it.
 * @throws invalid_input for one that does not exist in the team, or that can no longer succeed
 */
export async function requireParents(tx: Statements, teamId: string, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const found = await tx.$queryRaw<ParentJob[]>`select id, status from job where team_id = ${teamId} and id = any(${[...ids]}::text[]) order by id for share`;
  for (const id of ids) {
    const parent = found.find((job) => job.id === id);
    if (parent === undefined) throw new TunefleetError('invalid_input', `after: no such job: '${id}'. A job may wait for jobs of its own team, created before it`, { reason: 'parent_not_found', param: 'after' });
    if (isLost(parent)) throw new TunefleetError('invalid_input', `after: job ${id} is ${parent.status} and will never succeed: retry it and name the new job`, { reason: 'parent_not_succeeded', param: 'after' });
  }
}

interface Orphan {
  readonly id: string;
  readonly parent_id: string;
  readonly parent_status: JobStatus;
}

/** Cancels the waiting jobs below one that failed or was cancelled, down to the last. The caller has ended the parent in this transaction. */
export async function skipDependents(tx: Statements, parentId: string): Promise<void> {
  for (let parents = [parentId]; parents.length > 0; ) {
    // Parents are older than their children, so locks are always taken in one order.
    const children = await tx.$queryRaw<Orphan[]>`
      select child.id, parent.id as parent_id, parent.status as parent_status from job child join job parent on parent.id = any(child.after_job_ids)
      where child.after_job_ids && ${parents}::text[] and parent.id = any(${parents}::text[]) and child.status in ${waiting}
      order by child.id for no key update of child`;
    parents = [];
    for (const child of children) if (!parents.includes(child.id) && (await skip(tx, child))) parents.push(child.id);
  }
}

/** For what slipped through: waiting jobs with a lost parent. */
export function findOrphans(tx: Pick<Statements, '$queryRaw'>, limit: number): Promise<readonly Orphan[]> {
  return tx.$queryRaw<Orphan[]>`
    select distinct on (child.id) child.id, parent.id as parent_id, parent.status as parent_status
    from job child join job parent on parent.id = any(child.after_job_ids)
    where child.status in ${waiting} and child.after_job_ids <> '{}' and parent.status in ('failed', 'cancelled')
    order by child.id limit ${limit}`;
}

async function skip(tx: Statements, { id, parent_id, parent_status }: Orphan): Promise<boolean> {
  const failure = skippedFailure({ id: parent_id, status: parent_status });
  const count = await tx.$executeRaw`
    update job set status = 'cancelled', epoch = epoch + 1, error = ${jsonText(boundedFailure(failure))}::jsonb, finished_at = clock_timestamp(), waiting_reason = null, estimated_finish = null
    where id = ${id} and status in ${waiting}`;
  if (count > 0) await insertEvents(tx, id, [{ level: 'warn', type: 'message', message: failure.message, data: { code: failure.code, job: parent_id } }]);
  return count > 0;
}

/** Writes at queued jobs which parents they wait for. @param ids only these; at most `limit` of all when left out */
export async function explainWaiting(tx: Pick<Statements, '$queryRaw' | '$executeRaw'>, { ids, limit }: { readonly ids?: readonly string[]; readonly limit: number }): Promise<void> {
  const rows = await tx.$queryRaw<{ id: string; waiting_reason: string | null; parents: ParentJob[] }[]>`
    select j.id, j.waiting_reason, jsonb_agg(jsonb_build_object('id', p.id, 'status', p.status) order by p.id) as parents
    from job j join job p on p.id = any(j.after_job_ids) and p.status <> 'succeeded'
    where j.status = 'queued' and j.after_job_ids <> '{}' ${ids === undefined ? Prisma.empty : Prisma.sql`and j.id = any(${[...ids]}::text[])`}
    group by j.id limit ${limit}`;
  const changed = rows.map(({ id, waiting_reason, parents }) => ({ id, before: waiting_reason, reason: waitingForParents(parents) })).filter(({ before, reason }) => before !== reason);
  if (changed.length === 0) return;
  await tx.$executeRaw`
    update job set waiting_reason = r.reason, waiting_code = 'after_jobs', queue_position = null, estimated_start = null
    from unnest(${changed.map(({ id }) => id)}::text[], ${changed.map(({ reason }) => reason)}::text[]) as r (id, reason)
    where job.id = r.id and job.status = 'queued'`;
}

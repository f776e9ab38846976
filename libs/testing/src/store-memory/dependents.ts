import { isLost, skippedFailure, waitingForParents, type JobStatus, type ParentJob } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import { say } from './events';
import { storableFailure } from './storable';
import type { JobRow, Tables } from './tables';

const WAITING: readonly JobStatus[] = ['validating_files', 'queued', 'paused'];

export function isUnblocked(tables: Tables, job: JobRow): boolean {
  return job.afterJobIds.length === 0 || openParents(tables, job).length === 0;
}

function openParents(tables: Tables, { afterJobIds }: JobRow): ParentJob[] {
  return afterJobIds.flatMap((id) => tables.jobs.get(id) ?? []).filter(({ status }) => status !== 'succeeded');
}

export function requireParents(tables: Tables, teamId: string, ids: readonly string[]): void {
  for (const id of ids) {
    const parent = tables.jobs.get(id);
    if (parent?.teamId !== teamId) throw new TunefleetError('invalid_input', `after: no such job: '${id}'`, { reason: 'parent_not_found', param: 'after' });
    if (isLost(parent)) throw new TunefleetError('invalid_input', `after: job ${id} is ${parent.status}`, { reason: 'parent_not_succeeded', param: 'after' });
  }
}

/** Cancels the waiting jobs below one that failed or was cancelled, down to the last. */
export function skipDependents(tables: Tables, parentId: string): void {
  const parent = tables.jobs.get(parentId) as JobRow;
  for (const child of tables.childrenOf(parentId)) {
    if (!WAITING.includes(child.status)) continue;
    const failure = skippedFailure(parent);
    tables.changeJob(child.id, { status: 'cancelled', epoch: child.epoch + 1, error: storableFailure(failure), finishedAt: tables.now(), waitingReason: null, estimatedFinish: null });
    say(tables, child.id, failure.message, 'warn', { code: failure.code, job: parentId });
    skipDependents(tables, child.id);
  }
}

/** Lost parents of jobs that still wait. */
export function findOrphans(tables: Tables, limit: number): string[] {
  const parents = new Set<string>();
  for (const job of tables.jobs.values()) {
    if (parents.size >= limit || job.afterJobIds.length === 0 || !WAITING.includes(job.status)) continue;
    const lost = job.afterJobIds.map((id) => tables.jobs.get(id)).find((parent) => parent !== undefined && isLost(parent));
    if (lost !== undefined) parents.add(lost.id);
  }
  return [...parents];
}

export function explainWaiting(tables: Tables, jobs: readonly JobRow[]): void {
  for (const job of jobs) {
    if (job.status !== 'queued' || job.afterJobIds.length === 0) continue;
    const open = openParents(tables, job).sort((a, b) => (a.id < b.id ? -1 : 1));
    if (open.length === 0) continue;
    const waitingReason = waitingForParents(open);
    if (waitingReason !== job.waitingReason) tables.changeJob(job.id, { waitingReason, waitingCode: 'after_jobs', queuePosition: null, estimatedStart: null });
  }
}

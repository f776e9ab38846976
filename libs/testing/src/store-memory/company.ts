import type { AttemptCompany, AttemptRecord } from '@tunefleet/ports';
import type { JobRow, Tables } from './tables';

/** Of the time between two moments of the attempt's life: of every second the nth part while n attempts are live on its worker. */
export function chargedSeconds(tables: Tables, { workerId }: AttemptRecord, fromMs: number, toMs: number): number {
  const edges = tables.attemptsOn(workerId).flatMap(({ assignedAt, finishedAt }) => {
    const [began, ended] = [Math.max(assignedAt.getTime(), fromMs), Math.min(finishedAt?.getTime() ?? toMs, toMs)];
    return ended > began ? [{ atMs: began, change: 1 }, { atMs: ended, change: -1 }] : [];
  });
  edges.sort((a, b) => a.atMs - b.atMs);
  let [seconds, live, sinceMs] = [0, 0, fromMs];
  for (const { atMs, change } of edges) {
    if (live > 0) seconds += (atMs - sinceMs) / 1000 / live;
    live += change;
    sinceMs = atMs;
  }
  return seconds;
}

export function companyOf(tables: Tables, jobId: string): ReadonlyMap<string, AttemptCompany> {
  return new Map(tables.attemptsOf(jobId).map((attempt) => [attempt.id, company(tables, attempt)]));
}

function company(tables: Tables, attempt: AttemptRecord): AttemptCompany {
  if (attempt.outcome === 'revoked') return { beside: [], gpuSeconds: 0 };
  const endMs = attempt.finishedAt?.getTime() ?? tables.nowMs();
  const beside = new Map<string, AttemptCompany['beside'][number]>();
  for (const { jobId, outcome, status, assignedAt, finishedAt } of tables.attemptsOn(attempt.workerId)) {
    if (jobId === attempt.jobId || outcome === 'revoked' || assignedAt.getTime() >= endMs || (finishedAt?.getTime() ?? Infinity) <= attempt.assignedAt.getTime()) continue;
    const isLive = attempt.status !== 'finished' && status !== 'finished';
    beside.set(jobId, { jobId, teamId: (tables.jobs.get(jobId) as JobRow).teamId, isLive: isLive || (beside.get(jobId)?.isLive ?? false) });
  }
  return { beside: [...beside.values()], gpuSeconds: chargedSeconds(tables, attempt, attempt.assignedAt.getTime(), endMs) };
}

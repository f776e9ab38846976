import type { FleetStore, QuietAttempt } from '@tunefleet/ports';
import { explainWaiting, findOrphans, skipDependents } from './dependents';
import { say } from './events';
import { fenceOf } from './fence';
import type { JobRow, Tables } from './tables';

type WatchdogMethods = Pick<FleetStore, 'listInfraFailures' | 'cordonWorker' | 'listQuiet' | 'noteStuck' | 'skipOrphans' | 'explainDependents' | 'listOverdueStops' | 'listUnevaluated'>;

/** Attempts that ran beside each other and failed within this time of each other: one failure, of what they shared. */
const TOGETHER_MS = 60_000;
const PACE_STEPS = 51;
const PACE_STEPS_MIN = 5;

export function watchdogMethods(tables: Tables): WatchdogMethods {
  return {
    listInfraFailures: async (workerId, withinMs) => {
      const sinceMs = Math.max(tables.nowMs() - withinMs, tables.workers.get(workerId)?.uncordonedAt?.getTime() ?? 0);
      const failed = tables
        .attemptsOn(workerId)
        .filter(({ outcome, finishedAt, failure }) => (outcome === 'failed' || outcome === 'lost') && (finishedAt?.getTime() ?? 0) > sinceMs && (failure?.class ?? 'infrastructure') === 'infrastructure')
        .map(({ id, jobId, failure, outcome, assignedAt, finishedAt }) => ({ id, jobId, code: failure?.code ?? outcome ?? '', beganMs: assignedAt.getTime(), endedMs: finishedAt?.getTime() ?? 0 }))
        .sort((a, b) => a.endedMs - b.endedMs || (a.id < b.id ? -1 : 1));
      return failed
        .filter(({ beganMs, endedMs }, index) => !failed.slice(0, index).some((before) => before.endedMs > beganMs && before.endedMs > endedMs - TOGETHER_MS))
        .map(({ jobId, code }) => ({ jobId, code }));
    },
    cordonWorker: async (workerId, cordonReason) => {
      if (tables.workers.get(workerId)?.cordoned !== false) return false;
      tables.changeWorker(workerId, { cordoned: true, cordonReason });
      return true;
    },
    listQuiet: async (quietMs, limit) => {
      const nowMs = tables.nowMs();
      const quiet = tables.liveAttempts().filter(({ status, epoch, jobId, steppedAt }) => {
        const job = tables.jobs.get(jobId) as JobRow;
        const isTraining = status === 'running' && job.epoch === epoch && job.status === 'running' && job.phase === 'train' && job.stopReason === null;
        return isTraining && steppedAt !== null && steppedAt.getTime() < nowMs - quietMs;
      });
      return quiet.slice(0, limit).map((attempt): QuietAttempt => ({ attempt, sinceStepMs: nowMs - (attempt.steppedAt?.getTime() ?? nowMs), medianStepMs: medianStepMs(tables, attempt) }));
    },
    noteStuck: async (key, message) => {
      const fence = fenceOf(tables, key);
      if (fence?.live !== true || fence.attempt.stuckAt !== null) return false;
      tables.changeAttempt(key.attemptId, { stuckAt: tables.now() });
      say(tables, key.jobId, `Stuck: ${message}`, 'warn', { code: 'stuck' });
      return true;
    },
    skipOrphans: async (limit) => {
      const parents = findOrphans(tables, limit);
      for (const parent of parents) skipDependents(tables, parent);
      if (parents.length > 0) tables.announce('schedule');
      return parents;
    },
    listOverdueStops: async (overdueMs, limit) => {
      const overdue = tables.liveAttempts().filter(({ jobId, epoch }) => {
        const job = tables.jobs.get(jobId) as JobRow;
        return job.status === 'running' && job.epoch === epoch && job.stopReason !== null && (job.stopDeadline?.getTime() ?? Infinity) < tables.nowMs() - overdueMs;
      });
      return overdue.slice(0, limit);
    },
    listUnevaluated: async (olderThanMs, limit) => {
      const beforeMs = tables.nowMs() - olderThanMs;
      const untold = tables.queuedJobs().filter(({ id, waitingCode, queuedAt, notBefore, afterJobIds }) => {
        const sinceMs = Math.max(queuedAt?.getTime() ?? 0, notBefore?.getTime() ?? 0, ...tables.attemptsOf(id).map(({ finishedAt }) => finishedAt?.getTime() ?? tables.nowMs()));
        return waitingCode === null && sinceMs < beforeMs && afterJobIds.every((parent) => tables.jobs.get(parent)?.status === 'succeeded');
      });
      return untold.slice(0, limit).map(({ id }) => id);
    },
    explainDependents: async (limit) => explainWaiting(tables, tables.queuedJobs().filter(({ afterJobIds }) => afterJobIds.length > 0).slice(0, limit)),
  };
}

function medianStepMs(tables: Tables, { jobId, epoch, step }: QuietAttempt['attempt']): number | null {
  const toldMs = new Map<number, number>();
  for (const point of tables.metrics.get(jobId)?.values() ?? []) {
    if (point.epoch === epoch && point.step > step - PACE_STEPS) toldMs.set(point.step, Math.min(toldMs.get(point.step) ?? Infinity, point.createdAt.getTime()));
  }
  const times = [...toldMs].sort(([a], [b]) => a - b).map(([, at]) => at);
  const paces = times.slice(1).map((at, index) => at - (times[index] as number)).sort((a, b) => a - b);
  if (paces.length < PACE_STEPS_MIN - 1) return null;
  const middle = (paces.length - 1) / 2;
  return ((paces[Math.floor(middle)] as number) + (paces[Math.ceil(middle)] as number)) / 2;
}

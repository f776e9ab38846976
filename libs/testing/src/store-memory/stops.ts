import { stopReasonTexts, type StopReason } from '@tunefleet/domain-jobs';
import type { AttemptRecord, FencedResult, FleetStore, StopOrder } from '@tunefleet/ports';
import { say } from './events';
import type { JobRow, Tables } from './tables';

type StopMethods = Pick<FleetStore, 'listStopRequests' | 'requestStop' | 'stopDrained' | 'preempt'>;

export function stopMethods(tables: Tables): StopMethods {
  return {
    listStopRequests: async (workerId) =>
      tables.liveOn(workerId).flatMap((attempt): StopOrder[] => {
        const key = { jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch };
        const { status, epoch, stopReason, stopDeadline } = tables.jobs.get(attempt.jobId) as JobRow;
        if (status !== 'running' || epoch !== attempt.epoch) return [{ key, reason: 'cancelled', graceMs: 0 }];
        if (stopReason === null) return [];
        const graceMs = Math.max(1, Math.trunc((stopDeadline?.getTime() ?? 0) - tables.nowMs()));
        return [{ key, reason: stopReason === 'paused' ? 'paused' : 'preempted', graceMs }];
      }),
    requestStop: async (job, reason, graceMs) => requestStop(tables, job, reason, graceMs),
    stopDrained: async (graceMs) => stopDrained(tables, graceMs),
    preempt: async ({ victims, workerId, forJobId, deadlineMs }) => {
      if (tables.jobs.get(forJobId)?.status !== 'queued' || tables.liveAttempts().some(({ preemptedForJobId }) => preemptedForJobId === forJobId)) return 'stale';
      const mayBeAsked = tables.liveOn(workerId).filter(({ jobId, epoch }) => {
        const job = tables.jobs.get(jobId) as JobRow;
        return job.status === 'running' && job.epoch === epoch && job.stopReason === null;
      });
      const isVictim = ({ id, epoch }: AttemptRecord): boolean => victims.some((victim) => victim.attemptId === id && victim.epoch === epoch);
      if (mayBeAsked.length === 0 || !mayBeAsked.every(isVictim)) return 'stale';
      for (const { id, jobId, epoch } of mayBeAsked) {
        requestStop(tables, { jobId, epoch }, 'preempted', deadlineMs);
        tables.changeJob(jobId, { preemptions: (tables.jobs.get(jobId)?.preemptions ?? 0) + 1 });
        tables.changeAttempt(id, { preemptedForJobId: forJobId });
      }
      return 'applied';
    },
  };
}

/** A user's pause goes over other reasons, taking it back only over the pause; otherwise the first request stands. */
export function requestStop(tables: Tables, { jobId, epoch }: { readonly jobId: string; readonly epoch: number }, reason: StopReason, graceMs: number): FencedResult {
  const job = tables.jobs.get(jobId);
  if (job === undefined || job.status !== 'running' || job.epoch !== epoch) return 'stale';
  if (!goesOver(reason, job.stopReason)) return 'applied';
  tables.changeJob(jobId, { stopReason: reason, stopDeadline: job.stopDeadline ?? new Date(tables.nowMs() + graceMs) });
  const attempt = tables.liveOf(jobId);
  say(tables, jobId, `Stopping after a checkpoint: ${stopReasonTexts[reason]}`);
  if (attempt?.epoch !== epoch) return 'applied';
  tables.changeAttempt(attempt.id, { stopReason: reason });
  tables.announce(`worker:${attempt.workerId}`);
  return 'applied';
}

function goesOver(reason: StopReason, current: StopReason | null): boolean {
  if (current === null) return reason !== 'resumed';
  return reason === 'paused' ? current !== 'paused' : reason === 'resumed' && current === 'paused';
}

export function stopDrained(tables: Tables, graceMs: number, workerId?: string): readonly string[] {
  const asked: string[] = [];
  for (const worker of workerId === undefined ? tables.workers.values() : [tables.workers.get(workerId)]) {
    if (worker === undefined || !(worker.drain === 'move' || (worker.drainDeadline?.getTime() ?? Infinity) <= tables.nowMs())) continue;
    for (const { jobId, epoch } of tables.liveOn(worker.id)) {
      if (tables.jobs.get(jobId)?.stopReason === null && requestStop(tables, { jobId, epoch }, 'drained', graceMs) === 'applied') asked.push(jobId);
    }
  }
  return asked;
}

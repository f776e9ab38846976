import type { RunningJob } from './snapshot';
import type { Fleet } from './worker-pool';

/** What a job that was asked to stop is expected to take for it. */
const STOP_MS = 30_000;

/** When a running job will end; Infinity: nobody knows. */
export function expectedEndMs({ estimatedFinishMs, secondsEstimate, assignedAtMs, stopping }: RunningJob, nowMs: number): number {
  if (stopping) return nowMs + STOP_MS;
  if (estimatedFinishMs !== null) return Math.max(nowMs, estimatedFinishMs);
  // Longer than estimated: then it may be any time.
  const expected = secondsEstimate === null ? Infinity : assignedAtMs + secondsEstimate * 1000;
  return expected < nowMs ? Infinity : expected;
}

/** Those on workers of the fleet, by its index. */
export function runningByWorker(fleet: Fleet, running: readonly RunningJob[]): ReadonlyMap<number, readonly RunningJob[]> {
  const byWorker = new Map<number, RunningJob[]>();
  for (const job of running) {
    const worker = fleet.indexOf.get(job.workerId);
    if (worker === undefined) continue;
    const others = byWorker.get(worker);
    if (others === undefined) byWorker.set(worker, [job]);
    else others.push(job);
  }
  return byWorker;
}

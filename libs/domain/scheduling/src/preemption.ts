import { fits } from './memory-fit';
import { agedPriority, classOf, type PriorityClass } from './priority';
import { expectedEndMs } from './running-view';
import type { QueuedJob, RunningJob, SchedulableWorker, Snapshot } from './snapshot';
import type { Feasibility } from './feasibility';
import type { TeamState } from './team-shares';
import type { Fleet } from './worker-pool';

/** What a victim has for its checkpoint before its engine is killed. */
export const PREEMPTION_DEADLINE_MS = 120_000;
/** A job is left alone for so long after each start, and after so many times for good. */
export const PREEMPTION_GRACE_MS = 600_000;
export const PREEMPTIONS_PER_JOB_MAX = 3;
export const PREEMPTIONS_PER_PASS_MAX = 20;

/** Asks all running jobs of a worker to write a checkpoint and go back into the queue. */
export interface Preemption {
  readonly victims: readonly { readonly jobId: string; readonly attemptId: string; readonly epoch: number }[];
  readonly workerId: string;
  readonly forJobId: string;
  readonly deadlineMs: number;
}

interface Victim {
  readonly running: RunningJob;
  readonly worker: number;
  readonly isBorrowing: boolean;
}

/**
 * Chooses who makes room. Only for a job of a higher class than the victim's, by the priorities they were given, and never one that would
 * go before it in the queue by its age: "is of a lower class" has no circles, so no two jobs can ever evict each other, and the one that
 * asked is the one that gets the worker.
 */
export class Preemptions {
  readonly chosen: Preemption[] = [];
  private readonly victims: readonly Victim[];
  /** Of the victims: most jobs see by it alone that they need not look. */
  private readonly lowestClass: PriorityClass;
  private readonly taken = new Set<string>();
  /** Job that waits -> worker that is being freed for it. */
  private readonly pending = new Map<string, string>();

  constructor(
    private readonly fleet: Fleet,
    snapshot: Pick<Snapshot, 'running'>,
    teams: ReadonlyMap<string, TeamState>,
    private readonly nowMs: number,
  ) {
    for (const { preemptedForJobId, workerId } of snapshot.running) if (preemptedForJobId !== null) this.pending.set(preemptedForJobId, workerId);
    const isBorrowing = borrowers(fleet, snapshot.running, teams);
    this.victims = snapshot.running
      .flatMap((running): Victim[] => {
        const worker = fleet.indexOf.get(running.workerId);
        return worker !== undefined && this.mayBeAsked(running, fleet.workers[worker] as SchedulableWorker) ? [{ running, worker, isBorrowing: isBorrowing(running.teamId) }] : [];
      })
      .sort(
        (a, b) =>
          Number(b.isBorrowing) - Number(a.isBorrowing) ||
          a.running.priority - b.running.priority ||
          b.running.assignedAtMs - a.running.assignedAtMs ||
          (a.running.jobId < b.running.jobId ? -1 : 1),
      );
    this.lowestClass = this.victims.reduce<PriorityClass>((lowest, { running }) => (classOf(running.priority) < lowest ? classOf(running.priority) : lowest), 2);
  }

  /** The worker that is being freed for the job already. */
  pendingFor(jobId: string): string | null {
    return this.pending.get(jobId) ?? null;
  }

  /** Asks somebody to make room for the job. @returns the worker; null: nobody has to */
  ask(job: QueuedJob, feasible: Feasibility): string | null {
    if (classOf(job.priority) <= this.lowestClass || this.chosen.length >= PREEMPTIONS_PER_PASS_MAX) return null;
    const victim = this.victims.find((candidate) => !this.taken.has(candidate.running.jobId) && this.yields(candidate, job, feasible));
    if (victim === undefined) return null;
    const { jobId, attemptId, epoch, workerId } = victim.running;
    this.taken.add(jobId);
    this.chosen.push({ victims: [{ jobId, attemptId, epoch }], workerId, forJobId: job.id, deadlineMs: PREEMPTION_DEADLINE_MS });
    return workerId;
  }

  private mayBeAsked(running: RunningJob, worker: SchedulableWorker): boolean {
    return (
      worker.online &&
      !worker.cordoned &&
      !running.stopping &&
      running.preemptions < PREEMPTIONS_PER_JOB_MAX &&
      this.nowMs - running.assignedAtMs >= PREEMPTION_GRACE_MS &&
      // It ends by itself before a checkpoint would have to be there.
      expectedEndMs(running, this.nowMs) - this.nowMs > PREEMPTION_DEADLINE_MS
    );
  }

  private yields({ running, worker: index }: Victim, job: QueuedJob, { pool, needBytes, excluded }: Feasibility): boolean {
    const worker = this.fleet.workers[index] as SchedulableWorker;
    return (
      classOf(running.priority) < classOf(job.priority) &&
      classOf(agedPriority(running, this.nowMs)) < classOf(agedPriority(job, this.nowMs)) &&
      fits(needBytes, worker.memoryBytesTotal) &&
      pool.has(index) &&
      !excluded.has(worker.id)
    );
  }
}

/** Teams that run on more workers than their weight entitles them to, among the teams that run or wait. */
function borrowers(fleet: Fleet, running: readonly RunningJob[], teams: ReadonlyMap<string, TeamState>): (teamId: string) => boolean {
  const open = fleet.workers.filter((worker) => worker.online && !worker.cordoned).length;
  const counts = new Map<string, number>();
  for (const { teamId } of running) counts.set(teamId, (counts.get(teamId) ?? 0) + 1);
  let weights = 0;
  for (const { account } of teams.values()) weights += account.weight;
  return (teamId) => (counts.get(teamId) ?? 0) > (open * (teams.get(teamId)?.account.weight ?? 1)) / weights;
}

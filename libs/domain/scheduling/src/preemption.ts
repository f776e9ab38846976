import { fits } from './memory-fit';
import { agedPriority, classOf, type PriorityClass } from './priority';
import { expectedEndMs, runningByWorker } from './running-view';
import type { QueuedJob, RunningJob, SchedulableWorker, Snapshot } from './snapshot';
import type { Feasibility } from './feasibility';
import { sharersByWorker, type TeamState } from './team-shares';
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

/** The jobs on one worker: they make room together, or nobody of them does. */
interface Victims {
  /** Those that are not stopping anyway. */
  readonly jobs: readonly RunningJob[];
  readonly worker: number;
  readonly isBorrowing: boolean;
  /** The highest of them. */
  readonly priority: number;
  readonly agedClass: PriorityClass;
  /** What is given up at the most: since they began, together. */
  readonly heldMs: number;
}

/** A worker that is being freed for a job. */
export interface FreedWorker {
  readonly workerName: string;
  /** That make room. */
  readonly jobs: number;
}

/**
 * Chooses who makes room. Only for a job of a higher class than the victims', by the priorities they were given, and never ones that would
 * go before it in the queue by their age: "is of a lower class" has no circles, so no two jobs can ever evict each other, and the one that
 * asked is the one that gets the worker.
 */
export class Preemptions {
  readonly chosen: Preemption[] = [];
  private readonly candidates: readonly Victims[];
  /** Of the candidates: most jobs see by it alone that they need not look. */
  private readonly lowestClass: PriorityClass;
  private readonly taken = new Set<number>();
  /** By the job that waits. */
  private readonly pending = new Map<string, FreedWorker>();

  constructor(
    private readonly fleet: Fleet,
    snapshot: Pick<Snapshot, 'running'>,
    teams: ReadonlyMap<string, TeamState>,
    private readonly nowMs: number,
  ) {
    for (const { preemptedForJobId, workerId } of snapshot.running) {
      if (preemptedForJobId === null) continue;
      const workerName = fleet.workers[fleet.indexOf.get(workerId) ?? -1]?.name ?? workerId;
      this.pending.set(preemptedForJobId, { workerName, jobs: (this.pending.get(preemptedForJobId)?.jobs ?? 0) + 1 });
    }
    const isBorrowing = borrowers(fleet, snapshot.running, teams);
    this.candidates = [...runningByWorker(fleet, snapshot.running)]
      .flatMap(([worker, running]): Victims[] => {
        const jobs = running.filter(({ stopping }) => !stopping);
        const mayBeAsked = jobs.length > 0 && running.every(({ preemptedForJobId }) => preemptedForJobId === null) && jobs.every((job) => this.mayBeAsked(job, fleet.workers[worker] as SchedulableWorker));
        return mayBeAsked ? [this.victims(worker, jobs, jobs.every(({ teamId }) => isBorrowing(teamId)))] : [];
      })
      .sort((a, b) => Number(b.isBorrowing) - Number(a.isBorrowing) || a.priority - b.priority || a.heldMs - b.heldMs || (firstId(a) < firstId(b) ? -1 : 1));
    this.lowestClass = this.candidates.reduce<PriorityClass>((lowest, { priority }) => (classOf(priority) < lowest ? classOf(priority) : lowest), 2);
  }

  /** The worker that is being freed for the job already. */
  pendingFor(jobId: string): FreedWorker | null {
    return this.pending.size === 0 ? null : (this.pending.get(jobId) ?? null);
  }

  /** Asks those on a worker to make room for the job. @returns the worker; null: nobody has to */
  ask(job: QueuedJob, feasible: Feasibility): FreedWorker | null {
    if (classOf(job.priority) <= this.lowestClass || this.chosen.length >= PREEMPTIONS_PER_PASS_MAX) return null;
    const found = this.candidates.find((candidate) => !this.taken.has(candidate.worker) && this.yields(candidate, job, feasible));
    if (found === undefined) return null;
    this.taken.add(found.worker);
    const { id, name } = this.fleet.workers[found.worker] as SchedulableWorker;
    this.chosen.push({ victims: found.jobs.map(({ jobId, attemptId, epoch }) => ({ jobId, attemptId, epoch })), workerId: id, forJobId: job.id, deadlineMs: PREEMPTION_DEADLINE_MS });
    return { workerName: name, jobs: found.jobs.length };
  }

  private victims(worker: number, jobs: readonly RunningJob[], isBorrowing: boolean): Victims {
    return {
      jobs,
      worker,
      isBorrowing,
      priority: Math.max(...jobs.map(({ priority }) => priority)),
      agedClass: classOf(Math.max(...jobs.map((job) => agedPriority(job, this.nowMs)))),
      heldMs: jobs.reduce((sum, { assignedAtMs }) => sum + this.nowMs - assignedAtMs, 0),
    };
  }

  private mayBeAsked(running: RunningJob, worker: SchedulableWorker): boolean {
    return (
      worker.online &&
      !worker.cordoned &&
      running.preemptions < PREEMPTIONS_PER_JOB_MAX &&
      this.nowMs - running.assignedAtMs >= PREEMPTION_GRACE_MS &&
      // It ends by itself before a checkpoint would have to be there.
      expectedEndMs(running, this.nowMs) - this.nowMs > PREEMPTION_DEADLINE_MS
    );
  }

  private yields({ priority, agedClass, worker: index }: Victims, job: QueuedJob, { pool, needBytes, excluded }: Feasibility): boolean {
    const worker = this.fleet.workers[index] as SchedulableWorker;
    return (
      classOf(priority) < classOf(job.priority) &&
      agedClass < classOf(agedPriority(job, this.nowMs)) &&
      fits(needBytes, worker.memoryBytesTotal) &&
      pool.has(index) &&
      !excluded.has(worker.id)
    );
  }
}

function firstId({ jobs }: Victims): string {
  return jobs.reduce((first, { jobId }) => (first === '' || jobId < first ? jobId : first), '');
}

/** Teams that run on more workers than their weight entitles them to, among the teams that run or wait. */
function borrowers(fleet: Fleet, running: readonly RunningJob[], teams: ReadonlyMap<string, TeamState>): (teamId: string) => boolean {
  const open = fleet.workers.filter((worker) => worker.online && !worker.cordoned).length;
  const sharers = sharersByWorker(running);
  const counts = new Map<string, number>();
  for (const { teamId, workerId } of running) counts.set(teamId, (counts.get(teamId) ?? 0) + 1 / (sharers.get(workerId) ?? 1));
  let weights = 0;
  for (const { account } of teams.values()) weights += account.weight;
  return (teamId) => (counts.get(teamId) ?? 0) > (open * (teams.get(teamId)?.account.weight ?? 1)) / weights;
}

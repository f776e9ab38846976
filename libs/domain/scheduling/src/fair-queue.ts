import { MinHeap } from './min-heap';
import { agedPriority, classOf, type PriorityClass } from './priority';
import type { QueuedJob } from './snapshot';
import { dueness, ENTRY_SECONDS_DEFAULT, type TeamState } from './team-shares';

interface TeamQueue {
  readonly team: TeamState;
  readonly jobs: readonly QueuedJob[];
  /** Jobs of other queues that are counted before these. */
  readonly offset: number;
}

/** @param at a number of its own for each job, below the number of jobs and the same whenever it is shown    @returns whether the job is given something: then its team is charged for it */
export type Visit = (job: QueuedJob, team: TeamState, at: number) => boolean;

/**
 * The order in which jobs are looked at: by class with ageing, then the team that is due most, then the team's own order (priority with
 * ageing, then first in first out). Who is due most changes with every job that is given something.
 */
export class FairQueue {
  /** By class, the highest first. */
  private readonly classes: readonly (readonly TeamQueue[])[];

  constructor(jobs: readonly QueuedJob[], teams: ReadonlyMap<string, TeamState>, nowMs: number) {
    const classes: readonly Map<string, AgedJob[]>[] = [new Map(), new Map(), new Map()];
    for (const job of jobs) {
      const aged = agedPriority(job, nowMs);
      const queues = classes[classOf(aged)] as Map<string, AgedJob[]>;
      const queue = queues.get(job.teamId);
      if (queue === undefined) queues.set(job.teamId, [{ job, aged }]);
      else queue.push({ job, aged });
    }
    let counted = 0;
    this.classes = [2, 1, 0].map((index) =>
      [...(classes[index as PriorityClass] ?? [])].map(([teamId, queue]) => {
        const offset = counted;
        counted += queue.length;
        return { team: teams.get(teamId) as TeamState, jobs: queue.sort(ownOrder).map(({ job }) => job), offset };
      }),
    );
  }

  /** Shows every job in turn. */
  inTurn(visit: Visit): void {
    for (const queues of this.classes) {
      const heap = new MinHeap<TeamQueue & { next: number }>(isDueBefore);
      for (const queue of queues) heap.push({ ...queue, next: 0 });
      for (let queue = heap.pop(); queue !== undefined; queue = heap.pop()) {
        const { team, jobs, offset } = queue;
        // Nobody else's turn comes before something changes.
        let charged = false;
        while (!charged && queue.next < jobs.length) {
          const at = queue.next++;
          const job = jobs[at] as QueuedJob;
          charged = visit(job, team, offset + at);
          if (charged) team.gpuSeconds += job.secondsEstimate ?? ENTRY_SECONDS_DEFAULT;
        }
        if (queue.next < jobs.length) heap.push(queue);
      }
    }
  }
}

function isDueBefore(a: Pick<TeamQueue, 'team'>, b: Pick<TeamQueue, 'team'>): boolean {
  const difference = dueness(a.team) - dueness(b.team);
  return difference < 0 || (difference === 0 && a.team.account.id < b.team.account.id);
}

interface AgedJob {
  readonly job: QueuedJob;
  readonly aged: number;
}

function ownOrder(a: AgedJob, b: AgedJob): number {
  return b.aged - a.aged || b.job.priority - a.job.priority || a.job.queuedAtMs - b.job.queuedAtMs || (a.job.id < b.job.id ? -1 : a.job.id > b.job.id ? 1 : 0);
}

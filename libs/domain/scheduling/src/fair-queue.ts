import { MinHeap } from './min-heap';
import { agedPriority, classOf, type PriorityClass } from './priority';
import type { QueuedJob } from './snapshot';
import { dueness, ENTRY_SECONDS_DEFAULT, type TeamState } from './team-shares';

interface TeamQueue {
  readonly team: TeamState;
  readonly jobs: readonly QueuedJob[];
  next: number;
}

/**
 * The order in which jobs are looked at: by class with ageing, then the team that is due most, then the team's own order (priority with
 * ageing, then first in first out). Who is due most changes with every job that is given something.
 */
export class FairQueue {
  /** By class, the highest first. */
  private readonly classes: readonly (readonly Pick<TeamQueue, 'team' | 'jobs'>[])[];

  constructor(jobs: readonly QueuedJob[], teams: ReadonlyMap<string, TeamState>, nowMs: number) {
    const classes: readonly Map<string, QueuedJob[]>[] = [new Map(), new Map(), new Map()];
    for (const { job, aged } of sorted(jobs, nowMs)) {
      const queues = classes[classOf(aged)] as Map<string, QueuedJob[]>;
      const queue = queues.get(job.teamId);
      if (queue === undefined) queues.set(job.teamId, [job]);
      else queue.push(job);
    }
    this.classes = [2, 1, 0].map((index) => [...(classes[index as PriorityClass] ?? [])].map(([teamId, queue]) => ({ team: teams.get(teamId) as TeamState, jobs: queue })));
  }

  /** Shows every job in turn. @param visit answers whether the job is given something: then its team is charged for it */
  inTurn(visit: (job: QueuedJob, team: TeamState) => boolean): void {
    for (const queues of this.classes) {
      const heap = new MinHeap<TeamQueue>(isDueBefore);
      for (const queue of queues) heap.push({ ...queue, next: 0 });
      for (let queue = heap.pop(); queue !== undefined; queue = heap.pop()) {
        const { team, jobs } = queue;
        // Nobody else's turn comes before something changes.
        let charged = false;
        while (!charged && queue.next < jobs.length) {
          const job = jobs[queue.next++] as QueuedJob;
          charged = visit(job, team);
          if (charged) team.gpuSeconds += job.secondsEstimate ?? ENTRY_SECONDS_DEFAULT;
        }
        if (queue.next < jobs.length) heap.push(queue);
      }
    }
  }
}

function isDueBefore(a: TeamQueue, b: TeamQueue): boolean {
  const difference = dueness(a.team) - dueness(b.team);
  return difference < 0 || (difference === 0 && a.team.account.id < b.team.account.id);
}

interface AgedJob {
  readonly job: QueuedJob;
  readonly aged: number;
}

function sorted(jobs: readonly QueuedJob[], nowMs: number): readonly AgedJob[] {
  return jobs.map((job) => ({ job, aged: agedPriority(job, nowMs) })).sort(ownOrder);
}

function ownOrder(a: AgedJob, b: AgedJob): number {
  return b.aged - a.aged || b.job.priority - a.job.priority || a.job.queuedAtMs - b.job.queuedAtMs || (a.job.id < b.job.id ? -1 : a.job.id > b.job.id ? 1 : 0);
}

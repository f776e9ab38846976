import type { FairQueue } from './fair-queue';
import type { Applicant } from './matching';
import { quotaReason } from './quota';
import { SharedWorkers } from './shared-workers';
import type { QueuedJob, RunningJob } from './snapshot';
import { Succession } from './succession';
import type { WaitingReason } from './waiting-reason';
import type { Fleet } from './worker-pool';

/** A job and the worker that it gets, by index. */
export interface Placed {
  readonly job: QueuedJob;
  readonly worker: number;
}

export interface SharingInput {
  readonly fleet: Fleet;
  readonly running: readonly RunningJob[];
  readonly queue: FairQueue;
  /** By the queue's numbers. Those that are given a place have no reason to wait any more; some get another one. */
  readonly applicants: readonly Applicant[];
  /** How many of those that wait may run beside others. */
  readonly sharers: number;
  /** On workers of their own, in this pass. */
  readonly placed: readonly Placed[];
  readonly nowMs: number;
}

export interface Sharing {
  readonly joined: readonly Placed[];
  /** Infinity: never. */
  readonly lookAgainAtMs: number;
  /** Everybody that may be on the worker. */
  jobIdsOn(worker: number): readonly string[];
}

const NONE: Sharing = { joined: [], lookAgainAtMs: Infinity, jobIdsOn: () => [] };

/** What a place beside others helps against, or what has a claim on a worker that others share. */
const MAY_JOIN: ReadonlySet<WaitingReason['code']> = new Set(['workers_busy', 'no_fitting_worker', 'model_locality']);

/** Fills the slots of workers, once everybody has had its pick of free ones: in the order of the queue, and not at the cost of those before. */
export function share({ fleet, running, queue, applicants, sharers, placed, nowMs }: SharingInput): Sharing {
  if (!fleet.hasSlots || sharers === 0) return NONE;
  const shared = new SharedWorkers(fleet, running, placed);
  if (!shared.hasPlaces) return NONE;
  const succession = new Succession(fleet, running, placed, nowMs);
  const joined: Placed[] = [];
  let sharersLeft = sharers;
  let lookAgainAtMs = Infinity;

  /** A worker of its own is as good as there. */
  const isReturning = ({ feasible }: Applicant): boolean => {
    const untilMs = succession.returnsUntilMs(feasible);
    lookAgainAtMs = Math.min(lookAgainAtMs, untilMs ?? Infinity);
    return untilMs !== null;
  };

  queue.inTurn((job, team, at) => {
    const applicant = applicants[at] as Applicant;
    // Who waits for what matters only to those behind that may share.
    if (sharersLeft === 0 || !shared.hasPlaces || applicant.reason === null) return false;
    if (job.shareKey !== null) sharersLeft--;
    if (!MAY_JOIN.has(applicant.reason.code)) return false;
    if (job.shareKey !== null && applicant.awaitedWorkerId === null && !isReturning(applicant)) {
      const excuse = quotaReason(team, nowMs);
      if (excuse !== null) {
        applicant.reason = excuse;
        return false;
      }
      const worker = shared.join(applicant, succession);
      if (worker !== null) {
        succession.joined(worker, job);
        applicant.reason = null;
        joined.push({ job, worker });
        team.runningJobs += 1;
        return true;
      }
    }
    const next = succession.wait(job, applicant.feasible, applicant.awaitedWorkerId);
    // One that never shares is not to wait for those either that share as long as the last of them.
    if (job.shareKey === null) shared.close(next);
    return false;
  });
  return { joined, lookAgainAtMs, jobIdsOn: (worker) => shared.jobIdsOn(worker) };
}

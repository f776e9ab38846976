import { FairQueue } from './fair-queue';
import { Feasibilities } from './feasibility';
import { Forecast } from './forecast';
import { Matching, type Applicant } from './matching';
import { fits, memoryAvailable } from './memory-fit';
import { ModelLocality } from './model-locality';
import { Preemptions, PREEMPTION_DEADLINE_MS, type FreedWorker, type Preemption } from './preemption';
import { quotaReason } from './quota';
import { share, type Sharing } from './sharing';
import type { QueuedJob, SchedulableWorker, Snapshot } from './snapshot';
import { teamStates, type TeamState } from './team-shares';
import type { WaitingJob, WaitingReason } from './waiting-reason';
import { fleetOf, isIdle, type Fleet } from './worker-pool';

/** One job onto one worker, valid only while both are as the snapshot says. */
export interface Placement {
  readonly jobId: string;
  readonly jobEpoch: number;
  readonly workerId: string;
  readonly workerBootId: string;
  readonly workerSessionId: string;
  readonly workerSlots: number;
  readonly resumeCheckpointId: string | null;
  /** Jobs that may hold the worker besides: it was seen that they fit together. None: the worker has to be empty. */
  readonly besideJobIds: readonly string[];
}

export interface Plan {
  readonly placements: readonly Placement[];
  readonly preemptions: readonly Preemption[];
  /** Every job that stays, by id, in the order of the queue. */
  readonly waiting: ReadonlyMap<string, WaitingJob>;
  /** When the mere passing of time changes something; null: never. */
  readonly lookAgainAtMs: number | null;
}

/** A worker that has just ended a job may not have told yet that its memory is free again: it is held for so long for a job that needs it. */
const MEMORY_RETURN_MS = 30_000;

/**
 * Decides which queued job goes to which worker, who makes room for whom, and what to tell those that wait. Pure; the store applies it with
 * conditional updates, and what changed meanwhile is planned again.
 */
export function plan(snapshot: Snapshot, nowMs: number = snapshot.nowMs): Plan {
  const pass = new Pass(snapshot, nowMs);
  pass.place();
  return pass.result(pass.share());
}

class Pass {
  private readonly fleet: Fleet;
  private readonly teams: ReadonlyMap<string, TeamState>;
  private readonly queue: FairQueue;
  private readonly feasibilities: Feasibilities;
  private readonly matching: Matching;
  private readonly locality: ModelLocality;
  /** By the numbers that the queue has for jobs. */
  private readonly applicants: Applicant[];
  /** Of those that wait, who may run beside others. */
  private sharers = 0;
  private lookAgainAtMs = Infinity;
  private turn = 0;

  constructor(
    private readonly snapshot: Snapshot,
    private readonly nowMs: number,
  ) {
    this.fleet = fleetOf(snapshot.workers);
    this.feasibilities = new Feasibilities(this.fleet);
    this.teams = teamStates(snapshot);
    this.queue = new FairQueue(snapshot.jobs, this.teams, nowMs);
    this.matching = new Matching(this.fleet, nowMs);
    this.locality = new ModelLocality(this.fleet, snapshot.running, nowMs);
    this.applicants = new Array<Applicant>(snapshot.jobs.length);
  }

  place(): void {
    this.queue.inTurn((job, team, at) => {
      const applicant: Applicant = { job, feasible: this.feasibilities.of(job), turn: this.turn++, reason: null, awaitedWorkerId: null };
      this.applicants[at] = applicant;
      applicant.reason = this.placeOne(applicant, team);
      if (applicant.reason !== null) {
        if (job.shareKey !== null) this.sharers++;
        return false;
      }
      team.runningJobs += 1;
      return true;
    });
  }

  share(): Sharing {
    const { fleet, queue, applicants, sharers, nowMs } = this;
    const sharing = share({ fleet, queue, applicants, sharers, nowMs, running: this.snapshot.running, placed: this.matching.placed() });
    this.lookAgainAt(sharing.lookAgainAtMs);
    return sharing;
  }

  /** @returns why it has to wait; null: it has a worker */
  private placeOne(applicant: Applicant, team: TeamState): WaitingReason | null {
    const { job, feasible } = applicant;
    const excuse = feasible.impossible ?? quotaReason(team, this.nowMs) ?? this.notYet(job);
    if (excuse !== null) return excuse;
    if (feasible.blocked !== null) {
      this.holdForReturningMemory(applicant);
      return feasible.blocked;
    }
    const free = this.matching.bestFree(applicant);
    if (free === null) return this.matching.makeRoom(applicant) ? null : feasible.busy;
    const wait = this.locality.waitFor(applicant, this.fleet.workers[free] as SchedulableWorker);
    if (wait === null) {
      this.matching.take(free, applicant);
      return null;
    }
    this.matching.reservations.hold(free, { jobId: job.id, turn: applicant.turn, fromMs: wait.untilMs });
    this.lookAgainAt(wait.untilMs);
    applicant.awaitedWorkerId = wait.workerId;
    return wait.reason;
  }

  private notYet({ notBeforeMs }: QueuedJob): WaitingReason | null {
    if (notBeforeMs === null || notBeforeMs <= this.nowMs) return null;
    this.lookAgainAt(notBeforeMs);
    return { code: 'after_failure', text: `waiting after a failure, tried again from ${new Date(notBeforeMs).toISOString()} on` };
  }

  private holdForReturningMemory({ job, feasible, turn }: Applicant): void {
    const { pool, from, needBytes } = feasible;
    for (let at = from; at < pool.members.length; at++) {
      const index = pool.members[at] as number;
      const worker = this.fleet.workers[index] as SchedulableWorker;
      const untilMs = (worker.idleSinceMs ?? -Infinity) + MEMORY_RETURN_MS;
      if (!isIdle(worker) || untilMs <= this.nowMs || fits(needBytes, memoryAvailable(worker)) || this.matching.reservations.isHeld(index)) continue;
      this.matching.reservations.hold(index, { jobId: job.id, turn, fromMs: untilMs });
      this.lookAgainAt(untilMs);
      return;
    }
  }

  result(sharing: Sharing): Plan {
    const placed = [...this.matching.placed(), ...sharing.joined];
    const forecast = new Forecast(this.fleet, this.snapshot, placed, this.nowMs);
    const preemptions = new Preemptions(this.fleet, this.snapshot, this.teams, this.nowMs);
    const waiting = new Map<string, WaitingJob>();
    this.queue.inTurn((job, _team, at) => {
      const { reason, feasible } = this.applicants[at] as Applicant;
      if (reason === null) return false;
      const isForeseeable = feasible.impossible === null && reason.code !== 'quota';
      const startMs = isForeseeable ? forecast.next(job, feasible) : Infinity;
      const isBusy = reason.code === 'workers_busy';
      const freed = isBusy ? (preemptions.pendingFor(job.id) ?? (startMs - this.nowMs > PREEMPTION_DEADLINE_MS ? preemptions.ask(job, feasible) : null)) : null;
      const { code, text } = freed === null ? reason : preemptionPending(freed);
      waiting.set(job.id, { code, text, position: waiting.size + 1, estimatedStartMs: startMs === Infinity ? null : Math.round(startMs) });
      return isForeseeable;
    });
    return {
      placements: placed.map(({ job, worker }) => placementOf(job, this.fleet.workers[worker] as SchedulableWorker, sharing.jobIdsOn(worker))),
      preemptions: preemptions.chosen,
      waiting,
      lookAgainAtMs: this.lookAgainAtMs === Infinity ? null : this.lookAgainAtMs,
    };
  }

  private lookAgainAt(ms: number): void {
    this.lookAgainAtMs = Math.min(this.lookAgainAtMs, ms);
  }
}

function preemptionPending({ workerName, jobs }: FreedWorker): WaitingReason {
  const who = jobs === 1 ? 'a job of a lower priority class writes its checkpoint there and makes room' : `${jobs} jobs of a lower priority class write their checkpoints there and make room`;
  return { code: 'preemption_pending', text: `waiting for worker ${workerName}: ${who}` };
}

function placementOf(job: QueuedJob, worker: SchedulableWorker, jobIds: readonly string[]): Placement {
  return {
    jobId: job.id,
    jobEpoch: job.epoch,
    workerId: worker.id,
    workerBootId: worker.bootId,
    workerSessionId: worker.sessionId,
    workerSlots: worker.slots,
    resumeCheckpointId: job.resumeCheckpointId,
    besideJobIds: jobIds.filter((id) => id !== job.id),
  };
}

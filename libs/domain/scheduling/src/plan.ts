import { FairQueue } from './fair-queue';
import { Feasibilities, type Feasibility } from './feasibility';
import { Forecast } from './forecast';
import { Matching, type Applicant } from './matching';
import { fits, memoryAvailable } from './memory-fit';
import { ModelLocality } from './model-locality';
import { Preemptions, PREEMPTION_DEADLINE_MS, type FreedWorker, type Preemption } from './preemption';
import { quotaReason } from './quota';
import { SharedWorkers } from './shared-workers';
import type { QueuedJob, SchedulableWorker, Snapshot } from './snapshot';
import { Succession } from './succession';
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

/** What a place beside others helps against, or what has a claim on a worker that others share. */
const MAY_JOIN: ReadonlySet<WaitingReason['code']> = new Set(['workers_busy', 'no_fitting_worker', 'model_locality']);

/** A worker that has just ended a job may not have told yet that its memory is free again: it is held for so long for a job that needs it. */
const MEMORY_RETURN_MS = 30_000;

/**
 * Decides which queued job goes to which worker, who makes room for whom, and what to tell those that wait. Pure; the store applies it with
 * conditional updates, and what changed meanwhile is planned again.
 */
export function plan(snapshot: Snapshot, nowMs: number = snapshot.nowMs): Plan {
  const pass = new Pass(snapshot, nowMs);
  pass.place();
  pass.share();
  return pass.result();
}

class Pass {
  private readonly fleet: Fleet;
  private readonly teams: ReadonlyMap<string, TeamState>;
  private readonly queue: FairQueue;
  private readonly feasibilities: Feasibilities;
  private readonly matching: Matching;
  private readonly locality: ModelLocality;
  private readonly reasons = new Map<string, { readonly reason: WaitingReason; readonly feasible: Feasibility }>();
  /** Busy workers for which jobs pass free ones by, by job. */
  private readonly awaited = new Map<string, string>();
  private readonly joined: { readonly job: QueuedJob; readonly worker: number }[] = [];
  private shared: SharedWorkers | null = null;
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
  }

  place(): void {
    this.queue.inTurn((job, team) => {
      const feasible = this.feasibilities.of(job);
      const reason = this.placeOne({ job, feasible, turn: this.turn++ }, team);
      if (reason === null) {
        team.runningJobs += 1;
        return true;
      }
      this.reasons.set(job.id, { reason, feasible });
      return false;
    });
  }

  /** Fills the slots of workers, once everybody has had its pick of free ones: in the order of the queue, and not at the cost of those before. */
  share(): void {
    const { snapshot, fleet, nowMs } = this;
    if (!fleet.hasSlots || !snapshot.jobs.some(({ id, shareKey }) => shareKey !== null && this.reasons.has(id))) return;
    const placed = this.matching.placed();
    const shared = new SharedWorkers(fleet, snapshot.running, placed);
    if (!shared.hasPlaces) return;
    const succession = new Succession(fleet, snapshot.running, placed, nowMs);
    this.shared = shared;
    this.queue.inTurn((job, team) => {
      const found = shared.hasPlaces ? this.reasons.get(job.id) : undefined;
      if (found === undefined || !MAY_JOIN.has(found.reason.code)) return false;
      const { feasible } = found;
      const awaitedWorkerId = this.awaited.get(job.id) ?? null;
      if (job.shareKey !== null && awaitedWorkerId === null && !this.isReturning(succession, feasible)) {
        const excuse = quotaReason(team, nowMs);
        if (excuse !== null) {
          this.reasons.set(job.id, { reason: excuse, feasible });
          return false;
        }
        const worker = shared.join({ job, feasible }, succession);
        if (worker !== null) {
          succession.joined(worker, job);
          this.reasons.delete(job.id);
          this.joined.push({ job, worker });
          team.runningJobs += 1;
          return true;
        }
      }
      const next = succession.wait(job, feasible, awaitedWorkerId);
      // One that never shares is not to wait for those either that share as long as the last of them.
      if (job.shareKey === null) shared.close(next);
      return false;
    });
  }

  /** A worker of its own is as good as there. */
  private isReturning(succession: Succession, feasible: Feasibility): boolean {
    const untilMs = succession.returnsUntilMs(feasible);
    if (untilMs !== null) this.lookAgainAt(untilMs);
    return untilMs !== null;
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
    this.awaited.set(job.id, wait.workerId);
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

  result(): Plan {
    const placed = [...this.matching.placed(), ...this.joined];
    const forecast = new Forecast(this.fleet, this.snapshot, placed, this.nowMs);
    const preemptions = new Preemptions(this.fleet, this.snapshot, this.teams, this.nowMs);
    const waiting = new Map<string, WaitingJob>();
    this.queue.inTurn((job) => {
      const found = this.reasons.get(job.id);
      if (found === undefined) return false;
      const { feasible } = found;
      const isForeseeable = feasible.impossible === null && found.reason.code !== 'quota';
      const startMs = isForeseeable ? forecast.next(job, feasible) : Infinity;
      const isBusy = found.reason.code === 'workers_busy';
      const freed = isBusy ? (preemptions.pendingFor(job.id) ?? (startMs - this.nowMs > PREEMPTION_DEADLINE_MS ? preemptions.ask(job, feasible) : null)) : null;
      const { code, text } = freed === null ? found.reason : preemptionPending(freed);
      waiting.set(job.id, { code, text, position: waiting.size + 1, estimatedStartMs: startMs === Infinity ? null : Math.round(startMs) });
      return isForeseeable;
    });
    return {
      placements: placed.map(({ job, worker }) => placementOf(job, this.fleet.workers[worker] as SchedulableWorker, this.shared?.jobIdsOn(worker) ?? [])),
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

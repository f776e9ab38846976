import { isTerminal, jobTransitions, type JobStatus } from '@tunefleet/domain-jobs';
import type { Snapshot } from '@tunefleet/domain-scheduling';
import type { AttemptRecord } from '@tunefleet/ports';
import type { Change, JobRow, MetricRow, Tables } from '@tunefleet/testing/store-memory';
import { numberOf } from './simulated-engine';

export class Violation extends Error {
  override readonly name = 'Violation';
}

/** What the rules say, written down here once more: numbers of the product are not asked about themselves. */
const EVALUATED_WITHIN_MS = 30_000;
const PREEMPTIONS_MAX = 3;
const PREEMPTION_GRACE_MS = 600_000;
/** After its deadline a stop has the lease, the kill and a pass of the reconciler left. */
const STOP_OVERDUE_MS = 90_000;
/** So long after the record has closed an attempt may its engine still be at work: lease, margin, checkpoint, kill. */
const ZOMBIE_MS = 90_000;
/** An engine that says nothing is given up after half an hour of its machine's clock; then a lease and a pass of the reconciler. */
const HUNG_MS = 33 * 60_000;
/** Without a control plane for so long, workers then have so long to come back before they count as lost. */
const AWAY_MS = 16_000;
const COME_BACK_MS = 14_000;
const ROUNDING_SECONDS = 1e-3;
const STARVED_MS = 45 * 60_000;
const STARVED_PLACEMENTS_PER_WORKER = 4;

interface Wait {
  readonly sinceMs: number;
  /** Placements of other teams meanwhile. */
  others: number;
}

/**
 * The rules that hold at every moment, whatever breaks. They see the changes of the record, one by one, and keep books of their own: what the
 * store believes of itself is not asked.
 */
export class Invariants {
  private readonly liveOfJob = new Map<string, string>();
  /** By worker. */
  private readonly holders = new Map<string, AttemptRecord[]>();
  private readonly heldSinceMs = new Map<string, number>();
  /** For how long workers had any attempt, those of now not counted. */
  private heldMs = 0;
  private readonly epochs = new Map<string, number>();
  private readonly attempts = new Map<number, { readonly jobId: string; readonly epoch: number; lastStep: number; endedAtMs: number | null }>();
  private readonly evaluatedAtMs = new Map<string, number>();
  private readonly queuedSinceMs = new Map<string, number>();
  private readonly starving = new Map<string, Wait>();
  private readonly hungSinceMs = new Map<string, number>();
  private readonly steps = new Map<string, Set<number>>();
  private broken: string | null = null;
  private excusedUntilMs = 0;
  private away = { fromMs: 0, untilMs: 0 };
  checks = 0;
  /** Placements beside others. */
  shared = 0;

  constructor(
    private readonly nowMs: () => number,
    private readonly tables: () => Tables,
  ) {}

  /** Nobody could have looked at the queue until now: no replica was up, or the database failed. */
  excuse(): void {
    this.excusedUntilMs = this.nowMs();
  }

  /** Called every second while no replica is up. */
  nobodyIsUp(): void {
    const nowMs = this.nowMs();
    this.away = { fromMs: nowMs - this.away.untilMs > 1_500 ? nowMs : this.away.fromMs, untilMs: nowMs };
    this.excuse();
  }

  /** @throws Violation the first one that was seen */
  check(): void {
    this.checks++;
    if (this.broken !== null) throw new Violation(this.broken);
  }

  onChange(change: Change): void {
    switch (change.table) {
      case 'job':
        return this.onJob(change.before, change.after);
      case 'attempt':
        return this.onAttempt(change.before, change.after);
      case 'metric':
        return this.onMetric(change.before, change.after);
      case 'worker':
        if (change.after.sessionId !== null && this.isRevoked(change.after.id)) this.fail(`the revoked worker ${change.after.id} has the session ${change.after.sessionId}`);
        return;
    }
  }

  /** A scheduler looks at these. */
  evaluated(snapshot: Snapshot): void {
    for (const { id } of snapshot.jobs) this.evaluatedAtMs.set(id, this.nowMs());
    this.watchFairness(snapshot);
  }

  onEngineStep(attemptId: string, workerId: string): void {
    const attempt = this.attempts.get(numberOf(attemptId));
    const overMs = this.nowMs() - (attempt?.endedAtMs ?? this.nowMs());
    if (overMs > ZOMBIE_MS) this.fail(`the engine of ${workerId} works on ${attemptId} ${overMs / 1000} s after that attempt was closed`);
  }

  /** @param models of those that an engine has at once, by attempt */
  onEngineShared(models: ReadonlyMap<string, string>, workerId: string): void {
    if (new Set(models.values()).size > 1) this.fail(`the engine of ${workerId} has ${[...models].map(([attemptId, model]) => `${attemptId} on ${model}`).join(' and ')}`);
  }

  onEngineHang(attemptId: string): void {
    this.hungSinceMs.set(attemptId, this.nowMs());
  }

  /** Every virtual second: what time alone can break. */
  onSecond(): void {
    const nowMs = this.nowMs();
    const tables = this.tables();
    for (const job of tables.queuedJobs()) {
      const lookedAtMs = Math.max(this.queuedSinceMs.get(job.id) ?? 0, this.evaluatedAtMs.get(job.id) ?? 0, this.excusedUntilMs);
      const isBlocked = job.waitingCode === 'after_jobs';
      if (!isBlocked && nowMs - lookedAtMs > EVALUATED_WITHIN_MS) this.fail(`no scheduler has looked at queued job ${job.id} for ${(nowMs - lookedAtMs) / 1000} s`);
      const toldMs = Math.max(this.queuedSinceMs.get(job.id) ?? 0, this.excusedUntilMs);
      if (job.waitingReason === null && nowMs - toldMs > EVALUATED_WITHIN_MS) this.fail(`job ${job.id} has been queued for ${(nowMs - toldMs) / 1000} s without a reason`);
    }
    for (const attempt of tables.liveAttempts()) {
      const deadline = tables.jobs.get(attempt.jobId)?.stopDeadline;
      const overdueMs = nowMs - Math.max(deadline?.getTime() ?? nowMs, this.excusedUntilMs);
      if (this.isRevoked(attempt.workerId)) this.fail(`${attempt.id} of ${attempt.jobId} is still open on ${attempt.workerId}, which was revoked`);
      if (overdueMs > STOP_OVERDUE_MS) this.fail(`${attempt.id} of ${attempt.jobId} was to stop ${overdueMs / 1000} s ago`);
    }
    this.checkCharges();
    for (const [attemptId, sinceMs] of this.hungSinceMs) {
      if (!tables.live.has(attemptId)) this.hungSinceMs.delete(attemptId);
      else if (nowMs - sinceMs > HUNG_MS) this.fail(`the engine of ${attemptId} has hung for ${(nowMs - sinceMs) / 60_000} min, and nobody gave it up`);
    }
    for (const [team, { sinceMs, others }] of this.starving) {
      if (nowMs - sinceMs > STARVED_MS && others > STARVED_PLACEMENTS_PER_WORKER * tables.workers.size) this.fail(`${team} has waited ${(nowMs - sinceMs) / 60_000} min for a worker while others got ${others}`);
    }
  }

  /** After faults and users have stopped and everything had its time. */
  onEnd(): void {
    const tables = this.tables();
    for (const job of tables.jobs.values()) {
      if (!isTerminal(job.status)) return this.fail(`${job.id} never ended: ${job.status}, ${job.waitingReason ?? job.stopReason ?? job.phase ?? ''}`);
    }
    const [live] = tables.liveAttempts();
    if (live !== undefined) this.fail(`${live.id} of the ended job ${live.jobId} was never closed`);
  }

  private onJob(before: JobRow | null, after: JobRow): void {
    const nowMs = this.nowMs();
    if (before !== null && after.epoch < before.epoch) this.fail(`the epoch of ${after.id} fell from ${before.epoch} to ${after.epoch}`);
    if (before !== null && before.status !== after.status) {
      if (isTerminal(before.status)) this.fail(`${after.id} had ${before.status} and became ${after.status}`);
      else if (!isLegal(before.status, after.status)) this.fail(`${after.id} went from ${before.status} to ${after.status}, which no rule allows`);
      if (after.status === 'succeeded') this.checkMetrics(after);
    }
    if (after.status === 'queued' && before?.status !== 'queued') {
      this.queuedSinceMs.set(after.id, nowMs);
      this.evaluatedAtMs.delete(after.id);
    }
    if (after.preemptions > PREEMPTIONS_MAX) this.fail(`${after.id} has made room ${after.preemptions} times; the cap is ${PREEMPTIONS_MAX}`);
  }

  private onAttempt(before: AttemptRecord | null, after: AttemptRecord): void {
    const { id, jobId, workerId, epoch } = after;
    if (before === null) this.onPlaced(after);
    else if (before.status === 'finished') this.fail(`${id} had finished and was changed`);
    if (before !== null && after.lastSeq < before.lastSeq) this.fail(`events of ${id} went back from ${before.lastSeq} to ${after.lastSeq}`);
    if (before !== null && (before.epoch !== epoch || before.jobId !== jobId || before.workerId !== workerId)) this.fail(`${id} became another attempt`);
    if (before?.preemptedForJobId === null && after.preemptedForJobId !== null) {
      const ranMs = this.nowMs() - after.assignedAt.getTime();
      if (ranMs < PREEMPTION_GRACE_MS) this.fail(`${id} was asked to make room after ${ranMs / 1000} s; it has ${PREEMPTION_GRACE_MS / 1000} s of grace`);
    }
    if (after.status === 'finished') {
      this.checkLost(after);
      if (this.liveOfJob.get(jobId) === id) this.liveOfJob.delete(jobId);
      if (before?.status !== 'finished') this.onReleased(after);
      const known = this.attempts.get(numberOf(id));
      if (known !== undefined) known.endedAtMs ??= this.nowMs();
    }
  }

  private checkLost({ id, failure }: AttemptRecord): void {
    const { fromMs, untilMs } = this.away;
    const backMs = this.nowMs() - untilMs;
    // One that came back in another life is another matter.
    if (failure?.message.includes('not heard from') !== true || untilMs - fromMs < AWAY_MS || backMs > COME_BACK_MS) return;
    this.fail(`${id} was given up ${backMs / 1000} s after no replica was up for ${(untilMs - fromMs) / 1000} s: its worker had no time to come back`);
  }

  private onReleased({ id, workerId, finishedAt }: AttemptRecord): void {
    const left = (this.holders.get(workerId) ?? []).filter((other) => other.id !== id);
    this.holders.set(workerId, left);
    if (left.length > 0) return;
    const endedMs = finishedAt?.getTime() ?? this.nowMs();
    this.heldMs += endedMs - (this.heldSinceMs.get(workerId) ?? endedMs);
    this.heldSinceMs.delete(workerId);
  }

  /** Nobody is charged for more of a worker's time than there was, however many share it. All of a world lies in one month. */
  private checkCharges(): void {
    const chargedSeconds = [...this.tables().usage.values()].reduce((sum, { monthGpuSeconds }) => sum + monthGpuSeconds, 0);
    const nowMs = this.nowMs();
    const heldMs = [...this.heldSinceMs.values()].reduce((sum, sinceMs) => sum + nowMs - sinceMs, this.heldMs);
    if (chargedSeconds > heldMs / 1000 + ROUNDING_SECONDS) this.fail(`teams were charged for ${chargedSeconds} s of workers that had attempts for ${heldMs / 1000} s`);
  }

  private onPlaced(placed: AttemptRecord): void {
    const { id, jobId, workerId, epoch } = placed;
    const ofJob = this.liveOfJob.get(jobId);
    if (ofJob !== undefined) this.fail(`${jobId} got the attempt ${id} while ${ofJob} is live`);
    const others = this.holders.get(workerId) ?? [];
    if (others.length > 0) this.shared++;
    this.checkSharing(placed, others);
    if (others.length === 0) this.heldSinceMs.set(workerId, placed.assignedAt.getTime());
    this.holders.set(workerId, [...others, placed]);
    const last = this.epochs.get(jobId) ?? 0;
    if (epoch <= last) this.fail(`${id} of ${jobId} has the epoch ${epoch} after ${last}`);
    this.liveOfJob.set(jobId, id);
    this.epochs.set(jobId, epoch);
    this.attempts.set(numberOf(id), { jobId, epoch, lastStep: 0, endedAtMs: null });
    const job = this.tables().jobs.get(jobId);
    if (job !== undefined) this.starving.delete(job.teamId);
    // A place beside others is none that it could have had.
    if (others.length === 0) for (const [team, wait] of this.starving) if (team !== job?.teamId) wait.others++;
  }

  /** @param others that the worker has not finished */
  private checkSharing({ id, jobId, workerId, slot }: AttemptRecord, others: readonly AttemptRecord[]): void {
    const { jobs, workers, attempts } = this.tables();
    const worker = workers.get(workerId);
    const rows = [jobId, ...others.map((other) => other.jobId)].flatMap((of) => jobs.get(of) ?? []);
    const named = others.map((other) => other.id).join(', ');
    const sameSlot = others.find((other) => other.slot === slot);
    if (sameSlot !== undefined) this.fail(`worker ${workerId} got the attempt ${id} in slot ${slot} while it has not finished ${sameSlot.id} there`);
    if (others.length >= (worker?.slots ?? 1)) this.fail(`worker ${workerId} of ${worker?.slots ?? 1} slots got the attempt ${id} while it has not finished ${named}`);
    if (others.length > 0 && (rows[0]?.shareKey == null || rows.some(({ shareKey }) => shareKey !== rows[0]?.shareKey))) {
      this.fail(`worker ${workerId} got the attempt ${id} of key ${rows[0]?.shareKey ?? 'none'} beside ${named} of ${rows.slice(1).map(({ shareKey }) => shareKey ?? 'none').join(', ')}`);
    }
    if (others.some((other) => attempts.get(other.id)?.preemptedForJobId !== null)) this.fail(`worker ${workerId} got the attempt ${id} while ${named} make room there`);
    const has = worker?.device.memoryBytesTotal ?? 0;
    // Weights are there once, what each adds as often as there are jobs.
    const added = rows.reduce((sum, row) => sum + addedBytes(row), 0);
    const need = added + Math.max(0, ...rows.map((row) => (row.memoryBytesEstimate ?? 0) - addedBytes(row)));
    if (need > has) this.fail(`${rows.map((row) => row.id).join(' and ')} need ${need} bytes and were placed on ${workerId}, which has ${has}`);
  }

  private onMetric(before: MetricRow | null, after: MetricRow): void {
    // Its number stands in the value: see `SimulatedEngine`.
    const told = this.attempts.get(after.value);
    if (told === undefined || told.jobId !== after.jobId) return this.fail(`a metric of attempt ${after.value} was stored for ${after.jobId}`);
    if (told.epoch !== after.epoch) this.fail(`step ${after.step} of ${after.jobId} was told in epoch ${told.epoch} and stored in epoch ${after.epoch}`);
    if (told.endedAtMs !== null) this.fail(`step ${after.step} of ${after.jobId} was stored for attempt ${after.value} after that had ended`);
    if (before !== null && before.epoch >= after.epoch) this.fail(`step ${after.step} of ${after.jobId} was stored twice in epoch ${after.epoch}`);
    if (told.lastStep > 0 && after.step !== told.lastStep + 1) this.fail(`after step ${told.lastStep} of ${after.jobId} step ${after.step} was stored`);
    told.lastStep = after.step;
    const steps = this.steps.get(after.jobId) ?? new Set();
    this.steps.set(after.jobId, steps.add(after.step));
  }

  private checkMetrics({ id, totalSteps }: JobRow): void {
    const stored = this.steps.get(id) ?? new Set();
    for (let step = 1; step <= (totalSteps ?? 0); step++) if (!stored.has(step)) return this.fail(`${id} has succeeded without its step ${step}`);
  }

  /** A team starves when others get workers again and again while one of its jobs could have had any of them. */
  private watchFairness({ jobs }: Snapshot): void {
    const waiting = new Set<string>();
    for (const { teamId, notBeforeMs, workerSelector, priority } of jobs) {
      if ((notBeforeMs ?? 0) <= this.nowMs() && Object.keys(workerSelector).length === 0 && priority >= 0 && this.tables().quotaOf(teamId).runningJobs === null) waiting.add(teamId);
    }
    for (const team of this.starving.keys()) if (!waiting.has(team)) this.starving.delete(team);
    for (const team of waiting) if (!this.starving.has(team)) this.starving.set(team, { sinceMs: this.nowMs(), others: 0 });
  }

  private isRevoked(workerId: string): boolean {
    return (this.tables().credentials.get(workerId)?.revokedAt ?? null) !== null;
  }

  private fail(message: string): void {
    this.broken ??= message;
  }
}

function addedBytes({ sharedMemoryBytes, memoryBytesEstimate }: JobRow): number {
  return sharedMemoryBytes ?? memoryBytesEstimate ?? 0;
}

function isLegal(from: JobStatus, to: JobStatus): boolean {
  return Object.values(jobTransitions[from]).includes(to);
}

import { jobKinds, type Failure } from '@tunefleet/contracts';
import { defaultStuckRule, type StuckRule } from '@tunefleet/domain-jobs';
import type { Clock, Logger } from '@tunefleet/foundation';
import type { FleetStore, JobQueue, Outbox, RecordStore } from '@tunefleet/ports';
import type { AttemptEndings } from '../fleet/attempt-endings';
import { keyOf } from './attempt-key';
import { FleetWatch } from './fleet-watch';
import { relayOutbox } from './outbox-relay';

export interface ReconcilerDeps {
  readonly store: FleetStore;
  readonly records: Pick<RecordStore, 'listUnvalidatedJobs'>;
  readonly outbox: Pick<Outbox, 'lagMs' | 'relay'>;
  readonly queue: Pick<JobQueue, 'add'>;
  readonly endings: AttemptEndings;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly settings?: Partial<ReconcilerSettings>;
}

export interface ReconcilerSettings {
  /**
   * Once the record answers again after it did not, or there is a control plane again after there was none for this long, workers have so long to
   * come back before what was not heard of them is held against them.
   */
  readonly comeBackMs: number;
  /** An assignment nobody acknowledged for so long is taken back. */
  readonly unacknowledgedMs: number;
  readonly suspectMs: number;
  readonly offlineMs: number;
  /** A job still unvalidated after this is announced to intake again. */
  readonly unvalidatedMs: number;
  /** A message the relay has not handed on by then is handed on here. */
  readonly outboxStaleMs: number;
  /** A queued job no scheduler has looked at by then is announced to them again. */
  readonly unevaluatedMs: number;
  /** How long after its deadline a job may take to be handed back. */
  readonly overdueStopMs: number;
  readonly stuckRule: StuckRule;
}

export const defaultReconcilerSettings: ReconcilerSettings = {
  comeBackMs: 15_000,
  unacknowledgedMs: 10_000,
  suspectMs: 20_000,
  offlineMs: 30_000,
  unvalidatedMs: 30_000,
  outboxStaleMs: 30_000,
  unevaluatedMs: 30_000,
  overdueStopMs: 600_000,
  stuckRule: defaultStuckRule,
};

/** What a repair waits for that has to do with contact to workers, for another lease than the default one. */
export function repairTimes(leaseMs: number): Pick<ReconcilerSettings, 'comeBackMs' | 'unacknowledgedMs' | 'suspectMs' | 'offlineMs'> {
  return { comeBackMs: Math.round(leaseMs / 2), unacknowledgedMs: Math.round(leaseMs / 3), suspectMs: Math.round((leaseMs * 2) / 3), offlineMs: leaseMs };
}

export const REPAIRS = [
  'lease_expired',
  'assignment_revoked',
  'worker_silent',
  'intake_reannounced',
  'stuck_noted',
  'stuck_given_up',
  'drain_due',
  'orphans_skipped',
  'stop_overdue',
  'outbox_stale',
  'job_unevaluated',
] as const;
export type Repair = (typeof REPAIRS)[number];

/** Rows handled per repair and pass; the next pass takes the rest. */
const BATCH = 100;

/**
 * Makes the record right again after anything that died in between, from the record alone. Every repair is conditional, so replicas may
 * run it at the same time. Counts are kept: a steady rate of a repair points at a bug.
 */
export class Reconciler {
  private readonly counts = Object.fromEntries(REPAIRS.map((repair) => [repair, 0])) as Record<Repair, number>;
  private readonly settings: ReconcilerSettings;
  private readonly watch: FleetWatch;
  /** As of the last pass. */
  private unevaluated: ReadonlySet<string> = new Set();
  private recordWasAway = false;
  private expireFromMs = Number.NEGATIVE_INFINITY;
  /** In this pass: workers had the time to come back. */
  private couldBeHeard = false;

  constructor(private readonly deps: ReconcilerDeps) {
    this.settings = { ...defaultReconcilerSettings, ...deps.settings };
    const { store, endings } = deps;
    this.watch = new FleetWatch({ store, endings, stuckRule: this.settings.stuckRule, overdueStopMs: this.settings.overdueStopMs, repaired: (...repair) => this.repaired(...repair) });
  }

  repairs(): Readonly<Record<Repair, number>> {
    return { ...this.counts };
  }

  /** Says that a control plane is there, also while passes fail and are put off. */
  async keepWatch(): Promise<void> {
    await this.deps.store.keepWatch(this.settings.comeBackMs);
  }

  /** One pass over all repairs. One that fails does not keep the others from running. @throws AggregateError of what failed */
  async pass(): Promise<void> {
    const errors: unknown[] = [];
    const repairs = [
      () => this.expireLeases(),
      () => this.revokeUnacknowledged(),
      () => this.markSilent(),
      () => this.watch.drains(),
      () => this.couldBeHeard && this.watch.stuck(),
      () => this.couldBeHeard && this.watch.overdueStops(),
      () => this.watch.dependents(),
      () => this.wakeForUnevaluated(),
      () => this.reannounceUnvalidated(),
      () => this.relayStale(),
    ];
    for (const repair of repairs) {
      try {
        await repair();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, `${errors.length} repairs failed`);
  }

  private async expireLeases(): Promise<void> {
    for (const { attempt } of await this.listExpired()) {
      const failure: Failure = { class: 'infrastructure', code: 'worker_lost', message: 'the worker was not heard from before its lease ended', param: null, logTail: [] };
      await this.deps.endings.failed(keyOf(attempt), failure, 'lost');
      this.repaired('lease_expired', { attemptId: attempt.id, jobId: attempt.jobId, workerId: attempt.workerId });
    }
  }

  /** None for a while after the record or all control planes were away: no lease could be renewed, and the workers that hold them are alive. */
  private async listExpired(): ReturnType<FleetStore['listExpired']> {
    const { store, clock } = this.deps;
    const { comeBackMs } = this.settings;
    this.couldBeHeard = false;
    try {
      const watchedMs = await store.keepWatch(comeBackMs);
      const expired = await store.listExpired(BATCH);
      if (this.recordWasAway) this.expireFromMs = clock.monotonic() + comeBackMs;
      this.recordWasAway = false;
      this.couldBeHeard = watchedMs >= comeBackMs && clock.monotonic() >= this.expireFromMs;
      return this.couldBeHeard ? expired : [];
    } catch (error) {
      this.recordWasAway = true;
      throw error;
    }
  }

  private async revokeUnacknowledged(): Promise<void> {
    const { store } = this.deps;
    for (const { attempt } of await store.listUnacknowledgedOlderThan(this.settings.unacknowledgedMs, BATCH)) {
      const key = keyOf(attempt);
      if ((await store.revoke(key, 'the worker did not acknowledge the assignment')) === 'stale') await store.closeAttempt(key, 'stopped');
      await store.wake('schedule');
      this.repaired('assignment_revoked', { attemptId: attempt.id, jobId: attempt.jobId, workerId: attempt.workerId });
    }
  }

  private async markSilent(): Promise<void> {
    for (const workerId of await this.deps.store.markSilentWorkers(this.settings.suspectMs, this.settings.offlineMs)) this.repaired('worker_silent', { workerId });
  }

  private async reannounceUnvalidated(): Promise<void> {
    const { unvalidatedMs } = this.settings;
    // The queue ignores an id it remembers, so each period has its own.
    const period = Math.floor(this.deps.clock.now() / unvalidatedMs);
    for (const job of await this.deps.records.listUnvalidatedJobs(unvalidatedMs, BATCH)) {
      await this.deps.queue.add({ id: `again-${job.id}-${period}`, queue: jobKinds[job.kind].queue, payload: { jobId: job.id } });
      this.repaired('intake_reannounced', { jobId: job.id });
    }
  }

  private async wakeForUnevaluated(): Promise<void> {
    const jobIds = await this.deps.store.listUnevaluated(this.settings.unevaluatedMs, BATCH);
    // One that has only just come into the queue, long after it was submitted, is looked at before the next pass.
    const again = jobIds.filter((id) => this.unevaluated.has(id));
    this.unevaluated = new Set(jobIds);
    if (again.length > 0) await this.deps.store.wake('schedule');
    for (const jobId of again) this.repaired('job_unevaluated', { jobId });
  }

  /** The relay backs off after errors; what it left is handed on as soon as the queue takes it. */
  private async relayStale(): Promise<void> {
    const { outbox, queue } = this.deps;
    if ((await outbox.lagMs()) < this.settings.outboxStaleMs) return;
    await relayOutbox(outbox, queue, (messageId) => this.repaired('outbox_stale', { messageId }));
  }

  private repaired(repair: Repair, fields: object): void {
    this.counts[repair]++;
    this.deps.logger.info({ repair, total: this.counts[repair], ...fields }, 'repaired');
  }
}

import type { Clock, IdKind } from '@tunefleet/foundation';
import type { MemoryModel } from '@tunefleet/domain-scheduling';
import type { AdapterRecord, AttemptRecord, CheckpointRecord, DatasetVersionRecord, FileRecord, JobEventRecord, JobRecord, OutboxRecord, TeamQuota, TeamRecord, WakeTopic, WorkerCredentialRecord, WorkerRecord, WorkerScope } from '@tunefleet/ports';

export interface JobRow extends JobRecord {
  readonly idempotencyKey: string | null;
  readonly idempotencyHash: string | null;
  readonly weightBytes: number | null;
  readonly shape: string | null;
  readonly memoryModel: MemoryModel | null;
  readonly localitySince: Date | null;
  readonly shareKey: string | null;
  readonly sharedMemoryBytes: number | null;
}

export interface MetricRow {
  readonly jobId: string;
  readonly name: string;
  readonly step: number;
  readonly value: number;
  readonly epoch: number;
  readonly createdAt: Date;
}

export interface MeasurementRow {
  readonly kind: string;
  readonly baseModel: string;
  readonly memoryRatio: number | null;
  readonly secondsPerStep: number | null;
}

export interface UsageRow {
  readonly decayedGpuSeconds: number;
  readonly decayedAtMs: number;
  readonly monthMs: number;
  readonly monthGpuSeconds: number;
}

export interface OutboxRow extends OutboxRecord {
  readonly createdAtMs: number;
  publishedAtMs: number | null;
}

export interface JoinTokenRow {
  readonly id: string;
  readonly secretHash: string;
  readonly note: string | null;
  readonly maxUses: number | null;
  readonly uses: number;
  readonly scope: WorkerScope;
  readonly expiresAt: Date | null;
  readonly revokedAt: Date | null;
  readonly lastUsedAt: Date | null;
  readonly createdAt: Date;
}

/** One row as it was and as it is; `before` is null where it is new. */
export type Change =
  | { readonly table: 'job'; readonly before: JobRow | null; readonly after: JobRow }
  | { readonly table: 'attempt'; readonly before: AttemptRecord | null; readonly after: AttemptRecord }
  | { readonly table: 'worker'; readonly before: WorkerRecord | null; readonly after: WorkerRecord }
  | { readonly table: 'metric'; readonly before: MetricRow | null; readonly after: MetricRow };

export interface TablesOptions {
  readonly clock: Pick<Clock, 'now'>;
  readonly newId: (kind: IdKind) => string;
  /** Sees every change of these tables, in order. */
  readonly onChange: (change: Change) => void;
  readonly announce: (topic: WakeTopic) => void;
}

/** The record in maps, with the indices that its queries need. Whoever changes several rows does so without an await in between: that is the transaction. */
export class Tables {
  readonly jobs = new Map<string, JobRow>();
  readonly attempts = new Map<string, AttemptRecord>();
  readonly workers = new Map<string, WorkerRecord>();
  readonly checkpoints = new Map<string, CheckpointRecord>();
  readonly metrics = new Map<string, Map<string, MetricRow>>();
  readonly events = new Map<string, JobEventRecord[]>();
  readonly files = new Map<string, FileRecord>();
  readonly datasets = new Map<string, DatasetVersionRecord>();
  readonly adapters = new Map<string, AdapterRecord & { readonly deletedAt: Date | null }>();
  readonly teams = new Map<string, TeamRecord>();
  readonly quotas = new Map<string, TeamQuota>();
  readonly usage = new Map<string, UsageRow>();
  readonly measurements = new Map<string, MeasurementRow>();
  readonly outbox = new Map<string, OutboxRow>();
  /** Of `outbox`, in the order in which they were written, and in which they were published. */
  readonly owed = new Set<string>();
  readonly published = new Set<string>();
  readonly joinTokens = new Map<string, JoinTokenRow>();
  readonly credentials = new Map<string, WorkerCredentialRecord>();
  /** Bytes by hash, by job. */
  readonly uploads = new Map<string, Map<string, number>>();

  /** From when on, and when last, a control plane was there. */
  watch = { sinceMs: -Infinity, lastMs: -Infinity };

  readonly queued = new Set<string>();
  private queueOrder: readonly string[] | null = null;
  private workerOrder: readonly string[] | null = null;
  /** Workers whose row or whose attempts have changed since this was last emptied. */
  readonly changedWorkers = new Set<string>();
  readonly live = new Set<string>();
  private readonly attemptsByJob = new Map<string, string[]>();
  private readonly attemptsByWorker = new Map<string, string[]>();
  private readonly liveByWorker = new Map<string, Set<string>>();
  private readonly lastEndMs = new Map<string, number>();
  private readonly checkpointsByJob = new Map<string, CheckpointRecord[]>();
  private readonly childrenByJob = new Map<string, string[]>();

  constructor(readonly options: TablesOptions) {}

  now(): Date {
    return new Date(this.options.clock.now());
  }

  nowMs(): number {
    return this.options.clock.now();
  }

  newId(kind: IdKind): string {
    return this.options.newId(kind);
  }

  announce(topic: WakeTopic): void {
    this.options.announce(topic);
  }

  putJob(after: JobRow): void {
    const before = this.jobs.get(after.id) ?? null;
    this.jobs.set(after.id, after);
    if (after.status === 'queued') this.queued.add(after.id);
    else this.queued.delete(after.id);
    if (before?.status !== after.status || before.priority !== after.priority || before.queuedAt !== after.queuedAt) this.queueOrder = null;
    if (before === null) for (const parent of after.afterJobIds) append(this.childrenByJob, parent, after.id);
    this.options.onChange({ table: 'job', before, after });
  }

  changeJob(id: string, changes: Partial<JobRow>): void {
    const row = this.jobs.get(id);
    if (row !== undefined) this.putJob({ ...row, ...changes });
  }

  putAttempt(after: AttemptRecord): void {
    const before = this.attempts.get(after.id) ?? null;
    this.attempts.set(after.id, after);
    if (before === null) {
      append(this.attemptsByJob, after.jobId, after.id);
      append(this.attemptsByWorker, after.workerId, after.id);
    }
    this.changedWorkers.add(after.workerId);
    const ofWorker = this.liveByWorker.get(after.workerId) ?? new Set();
    this.liveByWorker.set(after.workerId, ofWorker);
    if (after.status === 'finished') {
      this.live.delete(after.id);
      ofWorker.delete(after.id);
      this.lastEndMs.set(after.workerId, Math.max(this.lastEndMs.get(after.workerId) ?? 0, after.finishedAt?.getTime() ?? 0));
    } else {
      this.live.add(after.id);
      ofWorker.add(after.id);
    }
    this.options.onChange({ table: 'attempt', before, after });
  }

  changeAttempt(id: string, changes: Partial<AttemptRecord>): void {
    const row = this.attempts.get(id);
    if (row !== undefined) this.putAttempt({ ...row, ...changes });
  }

  putWorker(after: WorkerRecord): void {
    const before = this.workers.get(after.id) ?? null;
    this.workers.set(after.id, after);
    this.changedWorkers.add(after.id);
    if (before === null) this.workerOrder = null;
    this.options.onChange({ table: 'worker', before, after });
  }

  changeWorker(id: string, changes: Partial<WorkerRecord>): void {
    const row = this.workers.get(id);
    if (row !== undefined) this.putWorker({ ...row, ...changes });
  }

  /** @returns whether the step of that metric is new */
  putMetric(after: MetricRow): boolean {
    const points = this.metrics.get(after.jobId) ?? new Map<string, MetricRow>();
    this.metrics.set(after.jobId, points);
    const key = `${after.step} ${after.name}`;
    const before = points.get(key) ?? null;
    points.set(key, after);
    this.options.onChange({ table: 'metric', before, after });
    return before === null;
  }

  putCheckpoint(row: CheckpointRecord): void {
    const rows = this.checkpointsByJob.get(row.jobId) ?? [];
    const same = rows.find(({ step }) => step === row.step);
    const kept = same === undefined ? row : { ...row, id: same.id };
    this.checkpoints.set(kept.id, kept);
    this.checkpointsByJob.set(row.jobId, [...rows.filter(({ step }) => step !== row.step), kept].sort((a, b) => b.step - a.step));
  }

  /** Highest step first. */
  checkpointsOf(jobId: string): readonly CheckpointRecord[] {
    return this.checkpointsByJob.get(jobId) ?? [];
  }

  /** Oldest first. */
  attemptsOf(jobId: string): AttemptRecord[] {
    return (this.attemptsByJob.get(jobId) ?? []).map((id) => this.attempts.get(id) as AttemptRecord);
  }

  /** When an attempt ended there last; null: none has. */
  lastEndOn(workerId: string): number | null {
    return this.lastEndMs.get(workerId) ?? null;
  }

  attemptsOn(workerId: string): AttemptRecord[] {
    return (this.attemptsByWorker.get(workerId) ?? []).map((id) => this.attempts.get(id) as AttemptRecord);
  }

  liveOn(workerId: string): AttemptRecord[] {
    return [...(this.liveByWorker.get(workerId) ?? [])].map((id) => this.attempts.get(id) as AttemptRecord);
  }

  isBusy(workerId: string): boolean {
    return (this.liveByWorker.get(workerId)?.size ?? 0) > 0;
  }

  liveOf(jobId: string): AttemptRecord | undefined {
    return this.attemptsOf(jobId).find(({ status }) => status !== 'finished');
  }

  liveAttempts(): AttemptRecord[] {
    return [...this.live].map((id) => this.attempts.get(id) as AttemptRecord);
  }

  /** By priority, then in order of arrival. */
  queuedJobs(): JobRow[] {
    this.queueOrder ??= [...this.queued].map((id) => this.jobs.get(id) as JobRow).sort(inQueueOrder).map(({ id }) => id);
    return this.queueOrder.map((id) => this.jobs.get(id) as JobRow);
  }

  /** Their ids; another array only when there are others. */
  workersInOrder(): readonly string[] {
    this.workerOrder ??= [...this.workers.keys()].sort((a, b) => (a < b ? -1 : 1));
    return this.workerOrder;
  }

  childrenOf(jobId: string): JobRow[] {
    return (this.childrenByJob.get(jobId) ?? []).map((id) => this.jobs.get(id) as JobRow).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  quotaOf(teamId: string): TeamQuota {
    return this.quotas.get(teamId) ?? { weight: 1, runningJobs: null, gpuHoursPerMonth: null, queuedJobs: null, storageBytes: null, sharesWorkers: false };
  }
}

function inQueueOrder(a: JobRow, b: JobRow): number {
  return b.priority - a.priority || (a.queuedAt?.getTime() ?? 0) - (b.queuedAt?.getTime() ?? 0) || (a.id < b.id ? -1 : 1);
}

function append(index: Map<string, string[]>, key: string, id: string): void {
  const list = index.get(key);
  if (list === undefined) index.set(key, [id]);
  else list.push(id);
}

export function jobRecordOf(row: JobRow): JobRecord {
  const { idempotencyKey: _key, idempotencyHash: _hash, weightBytes: _weights, shape: _shape, memoryModel: _model, localitySince: _since, sharedMemoryBytes: _shared, ...job } = row;
  return job;
}

/** Keyset page of a list in its order. `null`: there is no such item. */
export function pageAfter<T extends { readonly id: string }>(all: readonly T[], after: string | undefined, limit: number): { items: T[]; hasMore: boolean } | null {
  const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
  if (after !== undefined && start === 0) return null;
  return { items: all.slice(start, start + limit), hasMore: all.length > start + limit };
}


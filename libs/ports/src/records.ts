import type { ArtifactRef, Failure, JobKind, WaitingCode } from '@tunefleet/contracts';
import type { JobStatus, StopReason } from '@tunefleet/domain-jobs';
import type { JsonObject, JsonValue } from '@tunefleet/foundation';

/** Rows of the record as the code sees them. Times are `Date`s read from the database clock. */

export interface TeamRecord {
  readonly id: string;
  readonly name: string;
}

/** What a team is entitled to; null: no bound. */
export interface TeamQuota {
  /** A team of weight 2 is due twice the GPU time of one of weight 1. */
  readonly weight: number;
  readonly runningJobs: number | null;
  readonly gpuHoursPerMonth: number | null;
  readonly queuedJobs: number | null;
  readonly storageBytes: number | null;
  /** Its jobs may run beside others on one worker, those of other teams that allow it, too. */
  readonly sharesWorkers: boolean;
}

/** A team with its quota and what it has of it. */
export interface TeamAccountRecord extends TeamRecord {
  readonly quota: TeamQuota;
  readonly runningJobs: number;
  /** Also those being validated. */
  readonly queuedJobs: number;
  readonly storageBytes: number;
  /** Of this calendar month (UTC), with what runs so far. */
  readonly monthGpuSeconds: number;
  /** Each halved for every seven days since; what the order between teams goes by. */
  readonly decayedGpuSeconds: number;
}

/** A team's GPU time on one day. */
export interface UsageDayRecord {
  readonly team: string;
  /** `YYYY-MM-DD`, UTC. */
  readonly day: string;
  readonly gpuSeconds: number;
  /** Of attempts that did not succeed, what came after their last checkpoint. */
  readonly wastedGpuSeconds: number;
  readonly attempts: number;
}

export interface FileRecord {
  readonly id: string;
  readonly teamId: string;
  readonly filename: string;
  readonly purpose: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly status: 'uploaded' | 'processed' | 'error';
  readonly statusDetails: string | null;
  readonly expiresAt: Date | null;
  readonly createdAt: Date;
  readonly deletedAt: Date | null;
}

export interface DatasetVersionRecord {
  readonly id: string;
  readonly teamId: string;
  readonly contentHash: string;
  readonly format: string;
  readonly rowCount: number;
  readonly summary: JsonObject;
  readonly createdAt: Date;
}

export interface JobRecord {
  readonly id: string;
  readonly teamId: string;
  readonly kind: JobKind;
  readonly schemaVersion: number;
  readonly status: JobStatus;
  readonly priority: number;
  readonly spec: JsonObject;
  readonly workerSpec: JsonObject | null;
  readonly baseModel: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly trainingDatasetId: string | null;
  readonly validationDatasetId: string | null;
  readonly memoryBytesEstimate: number | null;
  /** Jobs with the same key may run beside it on one worker; null: none may, or it is not validated yet. */
  readonly shareKey: string | null;
  readonly epoch: number;
  readonly infraFailures: number;
  readonly resourceFailures: number;
  /** Jobs of the same team that must have succeeded before this one is placed. */
  readonly afterJobIds: readonly string[];
  /** The job this one repeats, and how it came from it. */
  readonly sourceJobId: string | null;
  readonly sourceRelation: JobRelation | null;
  /** The running attempt has been asked to write a checkpoint and hand the job back. Null unless `running`. */
  readonly stopReason: StopReason | null;
  readonly stopDeadline: Date | null;
  readonly notBefore: Date | null;
  /** Labels a worker must have. */
  readonly workerSelector: Readonly<Record<string, string>>;
  /** Why it waits, as a sentence and for programs; with the next two as the scheduler last saw it. Only of a queued job. */
  readonly waitingReason: string | null;
  readonly waitingCode: WaitingCode | null;
  readonly queuePosition: number | null;
  readonly estimatedStart: Date | null;
  /** How often it has made room for others. */
  readonly preemptions: number;
  readonly step: number;
  readonly totalSteps: number | null;
  readonly phase: string | null;
  readonly tokensPerSecond: number | null;
  readonly estimatedFinish: Date | null;
  readonly error: Failure | null;
  readonly result: JsonObject | null;
  readonly resultFileIds: readonly string[];
  readonly createdAt: Date;
  readonly queuedAt: Date | null;
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
}

export type JobRelation = 'clone' | 'retry';

export type AttemptStatus = 'assigned' | 'running' | 'finished';
export type AttemptOutcome = 'succeeded' | 'failed' | 'stopped' | 'lost' | 'revoked';

export interface AttemptRecord {
  readonly id: string;
  readonly jobId: string;
  readonly epoch: number;
  readonly workerId: string;
  readonly workerBootId: string;
  /** Which of the worker's places it holds, from 0. */
  readonly slot: number;
  readonly status: AttemptStatus;
  readonly outcome: AttemptOutcome | null;
  readonly leaseExpiresAt: Date;
  readonly resumeCheckpointId: string | null;
  readonly lastSeq: number;
  readonly failure: Failure | null;
  readonly stopReason: StopReason | null;
  /** The job for which it makes room. */
  readonly preemptedForJobId: string | null;
  /** The last step it told of. */
  readonly step: number;
  readonly steppedAt: Date | null;
  /** Examples per forward pass, as the worker said last. */
  readonly microBatchSize: number | null;
  readonly stuckAt: Date | null;
  readonly assignedAt: Date;
  readonly acknowledgedAt: Date | null;
  readonly finishedAt: Date | null;
}

/** Whom an attempt shares its worker with, and what its team is charged for it. */
export interface AttemptCompany {
  /** Jobs that were there at any time, once each, in the order in which they came. */
  readonly beside: readonly { readonly jobId: string; readonly teamId: string; /** Both are there now. */ readonly isLive: boolean }[];
  /** So far: of every second the nth part while n attempts are live on the worker. 0 for one that was taken back. */
  readonly gpuSeconds: number;
}

export interface CheckpointRecord {
  readonly id: string;
  readonly jobId: string;
  readonly attemptId: string;
  readonly epoch: number;
  readonly step: number;
  readonly artifacts: readonly ArtifactRef[];
  readonly metrics: Readonly<Record<string, number>>;
  readonly createdAt: Date;
}

export interface MetricPointRecord {
  readonly name: string;
  readonly step: number;
  readonly value: number;
}

export interface JobEventRecord {
  readonly id: string;
  readonly jobId: string;
  readonly level: 'info' | 'warn' | 'error';
  readonly type: 'message' | 'metrics';
  readonly message: string;
  readonly data: JsonValue;
  readonly createdAt: Date;
}

export interface AdapterRecord {
  readonly id: string;
  readonly teamId: string;
  readonly jobId: string;
  readonly name: string;
  readonly baseModel: string;
  readonly baseRevision: string;
  readonly tunerKind: string;
  readonly artifacts: readonly ArtifactRef[];
  readonly createdAt: Date;
}

export interface WorkerDevice {
  readonly kind: 'gpu' | 'cpu';
  readonly name: string;
  readonly backend: string;
  readonly backendVersion: string;
  readonly memoryBytesTotal: number;
  readonly memoryBytesFree: number;
  readonly bf16: boolean;
  readonly threads: number;
}

export interface WorkerRecord {
  readonly id: string;
  readonly name: string;
  readonly bootId: string;
  readonly status: 'online' | 'suspect' | 'offline';
  readonly cordoned: boolean;
  readonly cordonReason: string | null;
  readonly uncordonedAt: Date | null;
  /** `wait`: emptied as its job ends; `move`: its job goes on elsewhere. Cordoned as long as it drains. */
  readonly drain: 'wait' | 'move' | null;
  readonly drainDeadline: Date | null;
  readonly version: string;
  readonly device: WorkerDevice;
  readonly labels: Readonly<Record<string, string>>;
  readonly jobKinds: readonly string[];
  readonly modelsOnDisk: readonly string[];
  readonly modelInMemory: string | null;
  /** Jobs it can run at once, of one base model. */
  readonly slots: number;
  readonly credit: number;
  readonly sessionId: string | null;
  readonly replicaId: string | null;
  readonly lastSeenAt: Date;
}

export interface OutboxRecord {
  readonly id: string;
  readonly queue: string;
  readonly messageId: string;
  readonly payload: JsonObject;
}

/** Keyset page: newest first unless the method says otherwise. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly hasMore: boolean;
}

export interface PageRequest {
  /** Id of the last item already seen. @throws not_found when no such item is visible. */
  readonly after?: string;
  readonly limit: number;
}

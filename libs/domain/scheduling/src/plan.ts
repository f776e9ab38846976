/** What the scheduler sees: a consistent picture read in one query. Times are milliseconds of the database clock. */
export interface Snapshot {
  readonly nowMs: number;
  readonly jobs: readonly QueuedJob[];
  readonly workers: readonly SchedulableWorker[];
  /** Queued jobs beyond the snapshot's bound. */
  readonly jobsNotShown: number;
}

export interface QueuedJob {
  readonly id: string;
  readonly kind: string;
  readonly teamId: string;
  readonly priority: number;
  readonly queuedAtMs: number;
  readonly notBeforeMs: number | null;
  /** "id@revision" */
  readonly baseModel: string;
  readonly memoryBytesEstimate: number;
  readonly resumeCheckpointId: string | null;
  /** Workers that lost an attempt of this job, most recent last. */
  readonly failedWorkerIds: readonly string[];
  readonly lastWorkerId: string | null;
}

export interface SchedulableWorker {
  readonly id: string;
  readonly name: string;
  readonly bootId: string;
  readonly sessionId: string;
  readonly online: boolean;
  readonly cordoned: boolean;
  readonly credit: number;
  readonly jobKinds: readonly string[];
  readonly memoryBytesTotal: number;
  readonly memoryBytesFree: number;
  readonly modelsOnDisk: readonly string[];
  readonly modelInMemory: string | null;
}

/** One job onto one worker, valid only while both are as the snapshot says. */
export interface Placement {
  readonly jobId: string;
  readonly workerId: string;
  readonly workerBootId: string;
  readonly workerSessionId: string;
  readonly resumeCheckpointId: string | null;
}

export interface Plan {
  readonly placements: readonly Placement[];
  /** One reason per job that stays, by job id. */
  readonly reasons: ReadonlyMap<string, string>;
}

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
  /** The job's epoch when the snapshot was taken: a placement is void once it has moved on. */
  readonly epoch: number;
  readonly teamId: string;
  readonly priority: number;
  readonly queuedAtMs: number;
  readonly notBeforeMs: number | null;
  /** "id@revision" */
  readonly baseModel: string;
  readonly memoryBytesEstimate: number;
  readonly resumeCheckpointId: string | null;
  /** Workers on which an attempt of this job was lost or failed, once per attempt, most recent last. */
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
  /** Holds a live attempt, perhaps of a job that has been cancelled meanwhile. */
  readonly busy: boolean;
  readonly credit: number;
  readonly jobKinds: readonly string[];
  readonly memoryBytesTotal: number;
  readonly memoryBytesFree: number;
  readonly modelsOnDisk: readonly string[];
  readonly modelInMemory: string | null;
}

/** What the scheduler sees: a consistent picture read in one transaction. Times are milliseconds of the database clock. */
export interface Snapshot {
  readonly nowMs: number;
  readonly jobs: readonly QueuedJob[];
  /** Also those that are away: what no worker on record could hold is told from what only waits. */
  readonly workers: readonly SchedulableWorker[];
  /** Live attempts. */
  readonly running: readonly RunningJob[];
  /** A team that is not listed has weight 1, no usage and no quota. */
  readonly teams: readonly TeamAccount[];
  /** Queued jobs beyond the snapshot's bound. */
  readonly jobsNotShown: number;
}

export interface QueuedJob {
  readonly id: string;
  readonly kind: string;
  /** The job's epoch when the snapshot was taken: a placement is void once it has moved on. */
  readonly epoch: number;
  readonly teamId: string;
  /** -100 to 100, see `priority.ts`. */
  readonly priority: number;
  readonly queuedAtMs: number;
  readonly notBeforeMs: number | null;
  /** "id@revision" */
  readonly baseModel: string;
  readonly memoryBytesEstimate: number;
  /** Measured peak relative to the estimate for jobs of this shape; 1 while none was measured. */
  readonly memoryCorrection: number;
  /** Jobs of equal keys may run beside each other on one worker. Null: it runs alone, because it may not share, or because its last attempt failed and is not to take others down with it. */
  readonly shareKey: string | null;
  /** Of the estimate, what it adds on a worker that holds its base model for others. Null where `shareKey` is. */
  readonly sharedMemoryBytes: number | null;
  /** Size of the base model's weights; null: unknown. */
  readonly weightBytes: number | null;
  /** How long it will hold a worker; null: nothing like it was measured yet. */
  readonly secondsEstimate: number | null;
  /** Labels a worker must have. */
  readonly workerSelector: Readonly<Record<string, string>>;
  /** Since when it has passed free workers by for one that holds its base model; null: it has not. */
  readonly localitySinceMs: number | null;
  readonly resumeCheckpointId: string | null;
  /** Workers on which an attempt of this job was lost or failed, once per attempt, most recent last. */
  readonly failedWorkerIds: readonly string[];
  readonly lastWorkerId: string | null;
}

export interface RunningJob {
  readonly jobId: string;
  readonly attemptId: string;
  readonly epoch: number;
  readonly teamId: string;
  readonly workerId: string;
  /** This and the next four as of a queued job. */
  readonly memoryBytesEstimate: number;
  readonly memoryCorrection: number;
  readonly shareKey: string | null;
  readonly sharedMemoryBytes: number | null;
  readonly priority: number;
  readonly queuedAtMs: number;
  readonly assignedAtMs: number;
  /** What its team would be charged if it ended now: of every second the nth part while n attempts were live on the worker. */
  readonly gpuSeconds: number;
  /** Of it, what is of this calendar month (UTC). */
  readonly monthGpuSeconds: number;
  /** As the worker last said; null: it has not yet. */
  readonly estimatedFinishMs: number | null;
  readonly secondsEstimate: number | null;
  /** How often it has made room for others. */
  readonly preemptions: number;
  /** Asked to stop, for whatever reason. */
  readonly stopping: boolean;
  /** The job it makes room for. */
  readonly preemptedForJobId: string | null;
}

export interface SchedulableWorker {
  readonly id: string;
  readonly name: string;
  readonly bootId: string;
  readonly sessionId: string;
  readonly online: boolean;
  /** Takes no new jobs. */
  readonly cordoned: boolean;
  /** Holds a live attempt, perhaps of a job that has been cancelled meanwhile. */
  readonly busy: boolean;
  /** Jobs it can run at once, of one base model. */
  readonly slots: number;
  readonly credit: number;
  readonly jobKinds: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly memoryBytesTotal: number;
  readonly memoryBytesFree: number;
  readonly modelsOnDisk: readonly string[];
  readonly modelInMemory: string | null;
  /** When its last attempt ended; null: it never had one, or has one. */
  readonly idleSinceMs: number | null;
}

export interface TeamAccount {
  readonly id: string;
  readonly name: string;
  /** Above 0. A team of weight 2 is due twice what one of weight 1 is. */
  readonly weight: number;
  /** Of ended attempts, each halved for every seven days since. */
  readonly decayedGpuSeconds: number;
  /** Of ended attempts in this calendar month (UTC). */
  readonly monthGpuSeconds: number;
  readonly quota: { readonly runningJobs: number | null; readonly gpuHoursPerMonth: number | null };
}

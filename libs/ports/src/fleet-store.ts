import type { ArtifactRef, Failure } from '@tunefleet/contracts';
import type { InfraFailure, StopReason } from '@tunefleet/domain-jobs';
import type { JsonObject, JsonValue } from '@tunefleet/foundation';
import type { Placement, Preemption, Snapshot, WaitingJob } from '@tunefleet/domain-scheduling';
import type { AttemptRecord, CheckpointRecord, JobRecord, WorkerRecord } from './records';

/** Names one attempt and its fencing token. Every write caused by a worker carries it. */
export interface AttemptKey {
  readonly jobId: string;
  readonly attemptId: string;
  readonly epoch: number;
}

/** `stale`: the epoch is over or the job has ended; the worker must stop and drop the attempt. */
export type FencedResult = 'applied' | 'stale';

export interface WorkerHello {
  readonly id: string;
  readonly bootId: string;
  readonly name: string;
  readonly version: string;
  readonly device: WorkerRecord['device'];
  readonly labels: Readonly<Record<string, string>>;
  readonly jobKinds: readonly string[];
  readonly modelsOnDisk: readonly string[];
  readonly modelInMemory: string | null;
  readonly slots: number;
  readonly sessionId: string;
  readonly replicaId: string;
}

export type WorkerEvent =
  | { readonly seq: number; readonly type: 'log'; readonly level: 'info' | 'warn' | 'error'; readonly message: string; readonly data: JsonValue }
  | { readonly seq: number; readonly type: 'metrics'; readonly step: number; readonly values: Readonly<Record<string, number>> }
  | {
      readonly seq: number;
      readonly type: 'progress';
      readonly step: number;
      readonly totalSteps: number;
      readonly phase: string;
      readonly tokensPerSecond: number;
      readonly etaSeconds: number;
      /** Examples per forward pass. */
      readonly microBatchSize?: number;
    }
  | {
      readonly seq: number;
      readonly type: 'checkpoint';
      readonly step: number;
      readonly artifacts: readonly ArtifactRef[];
      readonly metrics: Readonly<Record<string, number>>;
    };

export interface Completion {
  readonly result: JsonObject;
  readonly artifacts: readonly ArtifactRef[];
  /** Published with the terminal state: the adapter of a fine-tune job. */
  readonly adapter?: { readonly name: string; readonly baseModel: string; readonly baseRevision: string; readonly tunerKind: string };
  /** Result files, stored in the blob store already. */
  readonly resultFiles: readonly { readonly filename: string; readonly bytes: number; readonly sha256: string }[];
  readonly messages: readonly string[];
}

/** What to do with a job after one of its attempts ended without success (domain/jobs decides, the store applies). */
export type AfterFailure =
  | { readonly then: 'retry'; readonly counts: 'infrastructure' | 'resource' | 'none'; readonly delayMs: number; readonly specPatch?: JsonObject }
  | { readonly then: 'fail' };

/**
 * Placement, leases and what workers report. All times are the database's; every worker write is conditional on
 * (job, epoch) being the live one. Lock order: worker, job, attempt.
 */
export interface FleetStore {
  /**
   * Registers the worker under its new session; an attempt of another boot of it that is still live is left to its lease.
   * @throws permission_denied when it was revoked
   */
  helloWorker(hello: WorkerHello): Promise<WorkerRecord>;
  /** False when a newer session has taken over: close this stream. */
  touchWorker(workerId: string, sessionId: string, update: { memoryBytesFree?: number }): Promise<boolean>;
  setCredit(
    workerId: string,
    sessionId: string,
    credit: { jobs: number; modelsOnDisk: readonly string[]; modelInMemory: string | null },
  ): Promise<boolean>;
  /** The stream ended. The lease decides about its attempt. */
  disconnectWorker(workerId: string, sessionId: string): Promise<void>;

  /** Queued jobs that may be placed, of each team the first so that there are about `limit` in all; workers, live attempts, teams. */
  schedulingSnapshot(limit: number): Promise<Snapshot>;
  /**
   * Creates the attempt in the lowest free slot, with the next epoch and its lease, spends the credit, moves the job to `running`, wakes the worker's
   * session. Null when anything changed since the snapshot: also when another job than those it may run beside has come to the worker, or one there
   * has another share key or makes room.
   */
  place(placement: Placement, leaseMs: number): Promise<AttemptRecord | null>;
  /** What queued jobs are told, by job id. A job that is told of `model_locality` for the first time since it was last placed begins to count its wait. */
  noteWaiting(waiting: ReadonlyMap<string, WaitingJob>): Promise<void>;
  /**
   * Asks the victims to hand their jobs back, those that have not ended and are not asked already. `stale` when there is none left to ask, when others
   * have come to the worker, or when the other job no longer waits or has somebody making room.
   */
  preempt(preemption: Preemption): Promise<FencedResult>;
  /** Attempts placed on this worker's session but not acknowledged: what to send down the stream. @param leaseMs renews their leases, as the worker counts its own from receipt */
  listUnacknowledged(workerId: string, leaseMs?: number): Promise<readonly AssignmentRecord[]>;
  /** Live attempts of the worker, for matching against its Hello. */
  listLiveAttempts(workerId: string): Promise<readonly AttemptRecord[]>;
  /** What Stop messages are owed: live attempts of jobs that are no longer theirs to run, and those asked to hand their job back. */
  listStopRequests(workerId: string): Promise<readonly StopOrder[]>;
  /**
   * Asks the live attempt of that epoch to write a checkpoint within `graceMs` and hand its job back; it counts until it has. The first
   * request stands, except that a user's pause goes over the others.
   */
  requestStop(job: Pick<AttemptKey, 'jobId' | 'epoch'>, reason: StopReason, graceMs: number): Promise<FencedResult>;
  /** Asks for the jobs on workers that drain at once or whose time to drain is over. Returns their ids. */
  stopDrained(graceMs: number): Promise<readonly string[]>;

  /** @param leaseMs renews the lease, too */
  acknowledge(key: AttemptKey, leaseMs?: number): Promise<FencedResult>;
  /** Worker would not take it: ends the attempt as `revoked` and queues the job again. */
  revoke(key: AttemptKey, reason: string): Promise<FencedResult>;
  /** Renews from now on the database clock; never shortens. */
  renewLease(key: AttemptKey, leaseMs: number): Promise<FencedResult>;
  isLive(key: AttemptKey): Promise<boolean>;

  /** Stores events beyond the attempt's last sequence number, all or nothing; duplicates are skipped, a gap is refused. */
  appendEvents(key: AttemptKey, events: readonly WorkerEvent[]): Promise<{ result: FencedResult; lastSeq: number }>;
  /** The terminal transaction: result, adapter, result files, usage and state, once. */
  complete(key: AttemptKey, completion: Completion): Promise<FencedResult>;
  /** Ends the attempt as failed, lost or stopped and applies the decision to its job. Every end wakes the scheduler. */
  endAttempt(
    key: AttemptKey,
    end: { readonly outcome: 'failed' | 'lost' | 'stopped' | 'revoked'; readonly failure: Failure | null; readonly after: AfterFailure },
  ): Promise<FencedResult>;
  /** A stopped attempt of a cancelled or paused job: only closes the attempt. */
  closeAttempt(key: AttemptKey, outcome: 'stopped'): Promise<void>;

  /**
   * Says that a control plane is there to hear workers. Returns for how many milliseconds of the database clock there has been one, whichever,
   * without a gap of more than `gapMs`.
   */
  keepWatch(gapMs: number): Promise<number>;
  /** Live attempts whose lease has run out on the database clock, with their jobs. */
  listExpired(limit: number): Promise<readonly { attempt: AttemptRecord; job: JobRecord }[]>;
  /** Assigned but not acknowledged for so long. */
  listUnacknowledgedOlderThan(ms: number, limit: number): Promise<readonly { attempt: AttemptRecord; job: JobRecord }[]>;
  latestCheckpoint(jobId: string): Promise<CheckpointRecord | null>;
  /** Marks workers silent for `suspectMs` suspect and for `offlineMs` offline. Returns the ids of those that changed. */
  markSilentWorkers(suspectMs: number, offlineMs: number): Promise<readonly string[]>;
  getJob(id: string): Promise<JobRecord | null>;

  /** What the worker failed at within the time, since it was last uncordoned: infrastructure failures only, oldest first. */
  listInfraFailures(workerId: string, withinMs: number): Promise<readonly InfraFailure[]>;
  /** False when it is cordoned already. */
  cordonWorker(workerId: string, reason: string): Promise<boolean>;
  /** Attempts in their training phase without a step for `quietMs`. */
  listQuiet(quietMs: number, limit: number): Promise<readonly QuietAttempt[]>;
  /** Notes once that the attempt is stuck, as an event of its job. False when it was noted before, or has gone on. */
  noteStuck(key: AttemptKey, message: string): Promise<boolean>;
  /** Cancels waiting jobs that wait for one that has failed or was cancelled. Returns the ids of those waited for. */
  skipOrphans(limit: number): Promise<readonly string[]>;
  /** Live attempts that were to hand their job back (pause, drain, preemption) and are not done so long after their deadline. */
  listOverdueStops(overdueMs: number, limit: number): Promise<readonly AttemptRecord[]>;
  /** Jobs that could be placed and have been told nothing by any scheduler for so long; none while the queue is longer than a scheduler looks. */
  listUnevaluated(olderThanMs: number, limit: number): Promise<readonly string[]>;
  /** Says at each queued job that waits for others which ones these are. */
  explainDependents(limit: number): Promise<void>;

  /** Runs the callback whenever another process (or this one) says that something may be placed, sent or stopped. Best effort. */
  onWake(callback: (topic: WakeTopic) => void): Promise<{ close(): Promise<void> }>;
  wake(topic: WakeTopic): Promise<void>;
}

/** `schedule`: look at the queue again. `worker:<id>`: look at what that worker is owed. `revoked:<id>`: end its session. */
export type WakeTopic = 'schedule' | `worker:${string}` | `revoked:${string}`;

export interface StopOrder {
  readonly key: AttemptKey;
  readonly reason: 'cancelled' | 'paused' | 'preempted';
  /** Time left for a checkpoint; 0: drop everything. */
  readonly graceMs: number;
}

export interface QuietAttempt {
  readonly attempt: AttemptRecord;
  readonly sinceStepMs: number;
  /** Of the attempt's last steps; null while there are too few to tell. */
  readonly medianStepMs: number | null;
}

export interface AssignmentRecord {
  readonly key: AttemptKey;
  readonly job: JobRecord;
  readonly resume: CheckpointRecord | null;
}

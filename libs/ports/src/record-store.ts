import type { JobKind } from '@tunefleet/contracts';
import type { JobStatus } from '@tunefleet/domain-jobs';
import type { MemoryModel } from '@tunefleet/domain-scheduling';
import type { JsonObject } from '@tunefleet/foundation';
import type {
  AdapterRecord,
  AttemptCompany,
  AttemptRecord,
  CheckpointRecord,
  DatasetVersionRecord,
  FileRecord,
  JobEventRecord,
  JobRecord,
  JobRelation,
  MetricPointRecord,
  Page,
  PageRequest,
  TeamAccountRecord,
  TeamQuota,
  TeamRecord,
  UsageDayRecord,
  WorkerRecord,
} from './records';

/** What the HTTP API and intake read and write. Every method is one transaction; every query is scoped by team. */
export interface RecordStore {
  ensureTeam(name: string): Promise<TeamRecord>;
  /** By name. */
  listTeams(): Promise<readonly TeamAccountRecord[]>;
  getTeam(name: string): Promise<TeamAccountRecord | null>;
  /** Changes what is given; null lifts a bound. Null: no such team. */
  setTeamQuota(name: string, changes: Partial<TeamQuota>): Promise<TeamAccountRecord | null>;
  /** Whether the team's jobs may share workers. */
  sharesWorkers(teamId: string): Promise<boolean>;
  /** Days in UTC (`YYYY-MM-DD`), both included; by day, then team's name. Days without use are left out. */
  usageByDay(request: { readonly from: string; readonly to: string; readonly team?: string }): Promise<readonly UsageDayRecord[]>;

  /** @throws capacity when the team's files would exceed its quota */
  createFile(file: Pick<FileRecord, 'teamId' | 'filename' | 'purpose' | 'bytes' | 'sha256' | 'expiresAt'>): Promise<FileRecord>;
  getFile(teamId: string, id: string): Promise<FileRecord | null>;
  listFiles(teamId: string, request: PageRequest & { purpose?: string; order: 'asc' | 'desc' }): Promise<Page<FileRecord>>;
  setFileStatus(id: string, status: FileRecord['status'], details: string | null): Promise<void>;
  /** Tombstones the file. @throws invalid_input naming the live job that uses it. */
  deleteFile(teamId: string, id: string): Promise<FileRecord | null>;

  /**
   * Writes the job, its first event and the outbox row for intake. Same idempotency key: the earlier job, `created: false`.
   * @throws invalid_input with param `after` for a parent that does not exist in the team or can no longer succeed;
   * capacity when as many jobs of the team wait as its quota allows
   */
  createJob(request: NewJob): Promise<{ job: JobRecord; created: boolean }>;
  getJob(teamId: string, id: string): Promise<JobRecord | null>;
  listJobs(teamId: string, request: JobListRequest): Promise<Page<JobRecord>>;
  /** Terminal and final: bumps the epoch, so that nothing a worker still sends can count. @throws illegal_transition */
  cancelJob(teamId: string, id: string): Promise<JobRecord | null>;

  /** A queued job is put aside at once; a running one is asked to write a checkpoint within `graceMs` and pauses when it has. @throws illegal_transition */
  pauseJob(teamId: string, id: string, graceMs: number): Promise<JobRecord | null>;
  /** Behind the queue, to go on from its last checkpoint. A pause that has not taken effect yet is taken back. @throws illegal_transition */
  resumeJob(teamId: string, id: string): Promise<JobRecord | null>;
  /** @throws illegal_transition when the job runs or has ended */
  setJobPriority(teamId: string, id: string, priority: number): Promise<JobRecord | null>;

  /** Intake's end: `validating_files` -> `queued` with the worker's spec; its wake-up is no longer owed. False when the job is no longer validating. */
  admitJob(id: string, admission: JobAdmission): Promise<boolean>;
  /** Intake's refusal: `validating_files` -> `failed`. As for the rest. */
  refuseJob(id: string, failure: NonNullable<JobRecord['error']>): Promise<boolean>;
  /** Jobs still in `validating_files`, oldest first, for the reconciler. */
  listUnvalidatedJobs(olderThanMs: number, limit: number): Promise<readonly JobRecord[]>;
  getJobForIntake(id: string): Promise<JobRecord | null>;
  upsertDatasetVersion(version: Omit<DatasetVersionRecord, 'id' | 'createdAt'>): Promise<DatasetVersionRecord>;

  listEvents(jobId: string, request: PageRequest): Promise<Page<JobEventRecord>>;
  appendEvent(event: NewJobEvent): Promise<void>;
  /** Unless the job has one with the same message. */
  appendEventOnce(event: NewJobEvent): Promise<void>;
  listCheckpoints(jobId: string, request: PageRequest): Promise<Page<CheckpointRecord>>;
  getCheckpoint(id: string): Promise<CheckpointRecord | null>;
  /** All points of a job, by step then name; `sinceStep` exclusive. */
  listMetrics(jobId: string, request: { name?: string; sinceStep?: number; limit: number }): Promise<readonly MetricPointRecord[]>;
  listAttempts(jobId: string): Promise<readonly AttemptRecord[]>;
  /** Of each of the job's attempts, by its id. */
  listCompany(jobId: string): Promise<ReadonlyMap<string, AttemptCompany>>;

  listAdapters(teamId: string): Promise<readonly AdapterRecord[]>;
  getAdapterByName(teamId: string, name: string): Promise<AdapterRecord | null>;
  getAdapterByJob(teamId: string, jobId: string): Promise<AdapterRecord | null>;
  deleteAdapter(teamId: string, name: string): Promise<boolean>;

  listWorkers(): Promise<readonly WorkerRecord[]>;
  /** Measured peak relative to the estimate; 1 while no job of that shape was measured. */
  memoryCorrection(shape: string): Promise<number>;
  /** Uncordoning ends a drain, too, and what the worker failed at before is forgotten. */
  setWorkerCordoned(id: string, cordoned: boolean, reason?: string): Promise<WorkerRecord | null>;
  /** Cordons and empties it: at once (`move`), or when its job ends (`wait`) but not later than after `deadlineMs`. */
  drainWorker(id: string, drain: { readonly mode: 'wait' | 'move'; readonly deadlineMs?: number; readonly graceMs: number }): Promise<WorkerRecord | null>;
  /** By worker; those without one are left out. */
  countLiveAttempts(): Promise<ReadonlyMap<string, number>>;
  countJobs(): Promise<Readonly<Partial<Record<JobStatus, number>>>>;
  ping(): Promise<void>;
}

export type NewJobEvent = Pick<JobEventRecord, 'jobId' | 'level' | 'type' | 'message' | 'data'>;

export interface NewJob {
  readonly id: string;
  readonly teamId: string;
  readonly kind: JobKind;
  readonly spec: JsonObject;
  readonly baseModel: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly priority: number;
  /** Labels a worker must have. Default: none. */
  readonly workerSelector?: Readonly<Record<string, string>>;
  /** All must exist in the team and none may have failed. Checked in the transaction. */
  readonly afterJobIds?: readonly string[];
  readonly source?: { readonly jobId: string; readonly relation: JobRelation };
  /** Queue and payload of the wake-up for intake. */
  readonly queue: string;
  readonly idempotency?: { readonly key: string; readonly requestHash: string };
}

export interface JobAdmission {
  readonly spec: JsonObject;
  readonly workerSpec: JsonObject;
  readonly totalSteps: number | null;
  readonly memoryBytesEstimate: number;
  /** Of the base model. */
  readonly weightBytes?: number;
  /** Jobs of one shape take about as much memory, and as long for a step. */
  readonly shape?: string;
  readonly memoryModel?: MemoryModel;
  /** With whom the job may share a worker: jobs of equal keys can run beside each other. Absent: with nobody. */
  readonly sharing?: { readonly key: string; /** What the job adds on a worker that holds its base model for others. */ readonly memoryBytes: number };
  readonly trainingDatasetId: string | null;
  readonly validationDatasetId: string | null;
}

export interface JobListRequest extends PageRequest {
  readonly kind?: JobKind;
  readonly status?: JobStatus;
  /** All pairs must match; null: only jobs without metadata. */
  readonly metadata?: Readonly<Record<string, string>> | null;
}

import { schemaVersionOf } from '@tunefleet/contracts';
import { isTerminal, nextStatus, sourcesOf, type JobStatus, type JobTransition } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { JobRecord, NewJob, RecordStore } from '@tunefleet/ports';
import { explainWaiting, requireParents, skipDependents } from './dependents';
import { say } from './events';
import { requestStop } from './stops';
import { storable, storableFailure } from './storable';
import { jobRecordOf, pageAfter, type JobRow, type Tables } from './tables';

type JobMethods = Pick<
  RecordStore,
  'createJob' | 'getJob' | 'listJobs' | 'admitJob' | 'refuseJob' | 'listUnvalidatedJobs' | 'getJobForIntake' | 'countJobs' | 'cancelJob' | 'pauseJob' | 'resumeJob' | 'setJobPriority'
>;

export function jobMethods(tables: Tables): JobMethods {
  const controlling = (teamId: string, id: string, change: (job: JobRow) => void): JobRecord | null => {
    const job = tables.jobs.get(id);
    if (job?.teamId !== teamId) return null;
    change(job);
    return jobRecordOf(tables.jobs.get(id) as JobRow);
  };
  return {
    createJob: async (request) => createJob(tables, request),
    getJob: async (teamId, id) => controlling(teamId, id, () => undefined),
    getJobForIntake: async (id) => {
      const job = tables.jobs.get(id);
      return job === undefined ? null : jobRecordOf(job);
    },
    listJobs: async (teamId, { after, limit, kind, status, metadata }) => {
      if (after !== undefined && tables.jobs.get(after)?.teamId !== teamId) throw unknownAfter(after);
      const all = [...tables.jobs.values()].filter((job) => job.teamId === teamId).sort(newestFirst);
      const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
      const matching = all.slice(start).filter((job) => (kind === undefined || job.kind === kind) && (status === undefined || job.status === status) && hasMetadata(job, metadata));
      return { items: matching.slice(0, limit).map(jobRecordOf), hasMore: matching.length > limit };
    },
    admitJob: async (id, admission) => {
      const job = tables.jobs.get(id);
      if (job?.status !== 'validating_files') return false;
      tables.changeJob(id, {
        status: nextStatus('validating_files', 'validated'),
        spec: storable(admission.spec),
        workerSpec: storable(admission.workerSpec),
        totalSteps: admission.totalSteps,
        memoryBytesEstimate: Math.ceil(admission.memoryBytesEstimate),
        weightBytes: admission.weightBytes ?? null,
        shape: admission.shape ?? null,
        memoryModel: admission.memoryModel ?? null,
        shareKey: admission.sharing?.key ?? null,
        sharedMemoryBytes: admission.sharing === undefined ? null : Math.ceil(admission.sharing.memoryBytes),
        trainingDatasetId: admission.trainingDatasetId,
        validationDatasetId: admission.validationDatasetId,
        queuedAt: job.createdAt,
      });
      say(tables, id, 'Files validated, moving job to queued state');
      settleIntake(tables, id);
      explainWaiting(tables, [tables.jobs.get(id) as JobRow]);
      tables.announce('schedule');
      return true;
    },
    refuseJob: async (id, failure) => {
      if (tables.jobs.get(id)?.status !== 'validating_files') return false;
      tables.changeJob(id, { status: nextStatus('validating_files', 'failed'), error: storableFailure(failure), finishedAt: tables.now() });
      say(tables, id, failure.message, 'error');
      settleIntake(tables, id);
      skipDependents(tables, id);
      return true;
    },
    listUnvalidatedJobs: async (olderThanMs, limit) => {
      const beforeMs = tables.nowMs() - olderThanMs;
      const found = [...tables.jobs.values()].filter(({ status, createdAt }) => status === 'validating_files' && createdAt.getTime() < beforeMs);
      return found.slice(0, limit).map(jobRecordOf);
    },
    countJobs: async () => {
      const counts: Partial<Record<JobStatus, number>> = {};
      for (const { status } of tables.jobs.values()) counts[status] = (counts[status] ?? 0) + 1;
      return counts;
    },
    cancelJob: async (teamId, id) => controlling(teamId, id, (job) => cancel(tables, job)),
    pauseJob: async (teamId, id, graceMs) => controlling(teamId, id, (job) => pause(tables, job, graceMs)),
    resumeJob: async (teamId, id) => controlling(teamId, id, (job) => resume(tables, job)),
    setJobPriority: async (teamId, id, priority) => controlling(teamId, id, (job) => setPriority(tables, job, priority)),
  };
}

function createJob(tables: Tables, request: NewJob): { job: JobRecord; created: boolean } {
  const { idempotency, teamId } = request;
  const earlier = idempotency && [...tables.jobs.values()].find((job) => job.teamId === teamId && job.idempotencyKey === idempotency.key);
  if (earlier !== undefined) {
    if (earlier.idempotencyHash === idempotency?.requestHash) return { job: jobRecordOf(earlier), created: false };
    throw new TunefleetError('conflict', `the idempotency key was used for another request, which made job ${earlier.id}`, { reason: 'idempotency_key_reused', details: { jobId: earlier.id }, retry: 'never' });
  }
  requireRoomInQueue(tables, teamId);
  requireParents(tables, teamId, request.afterJobIds ?? []);
  const unset = {
    ...{ workerSpec: null, trainingDatasetId: null, validationDatasetId: null, memoryBytesEstimate: null, stopReason: null, stopDeadline: null, notBefore: null },
    ...{ waitingReason: null, waitingCode: null, queuePosition: null, estimatedStart: null, totalSteps: null, phase: null, tokensPerSecond: null, estimatedFinish: null },
    ...{ error: null, result: null, queuedAt: null, startedAt: null, finishedAt: null, weightBytes: null, shape: null, memoryModel: null, localitySince: null, shareKey: null, sharedMemoryBytes: null },
    ...{ epoch: 0, infraFailures: 0, resourceFailures: 0, preemptions: 0, step: 0, resultFileIds: [] },
  };
  tables.putJob({
    ...unset,
    id: request.id,
    teamId,
    kind: request.kind,
    schemaVersion: schemaVersionOf(request.kind, request.spec),
    status: 'validating_files',
    priority: request.priority,
    spec: storable(request.spec),
    baseModel: request.baseModel,
    metadata: request.metadata,
    workerSelector: request.workerSelector ?? {},
    afterJobIds: request.afterJobIds ?? [],
    sourceJobId: request.source?.jobId ?? null,
    sourceRelation: request.source?.relation ?? null,
    idempotencyKey: idempotency?.key ?? null,
    idempotencyHash: idempotency?.requestHash ?? null,
    createdAt: tables.now(),
  });
  say(tables, request.id, `Job created: ${request.id}`);
  const id = tables.newId('outbox');
  tables.outbox.set(id, { id, queue: request.queue, messageId: `${request.queue}-${request.id}`, payload: { jobId: request.id }, createdAtMs: tables.nowMs(), publishedAtMs: null });
  tables.owed.add(id);
  return { job: jobRecordOf(tables.jobs.get(request.id) as JobRow), created: true };
}

/** What calls intake to the job is no longer owed. */
function settleIntake(tables: Tables, jobId: string): void {
  for (const id of tables.owed) {
    const row = tables.outbox.get(id);
    if (row?.payload['jobId'] !== jobId) continue;
    row.publishedAtMs = tables.nowMs();
    tables.owed.delete(id);
    tables.published.add(id);
  }
}

function requireRoomInQueue(tables: Tables, teamId: string): void {
  const quota = tables.quotaOf(teamId).queuedJobs;
  if (quota === null) return;
  const waiting = [...tables.jobs.values()].filter((job) => job.teamId === teamId && (job.status === 'validating_files' || job.status === 'queued')).length;
  if (waiting + 1 > quota) throw new TunefleetError('capacity', `${waiting} jobs of your team wait, and its quota is ${quota}`, { reason: 'queue_quota_exceeded', details: { waiting, quota } });
}

function cancel(tables: Tables, job: JobRow): void {
  if (job.status === 'cancelled') return;
  if (isTerminal(job.status)) throw illegal(job, 'cancelled');
  tables.changeJob(job.id, { status: 'cancelled', epoch: job.epoch + 1, finishedAt: tables.now(), waitingReason: null, estimatedFinish: null, stopReason: null, stopDeadline: null });
  say(tables, job.id, 'Job cancelled');
  const live = tables.liveOf(job.id);
  if (live !== undefined) tables.announce(`worker:${live.workerId}`);
  skipDependents(tables, job.id);
}

function pause(tables: Tables, job: JobRow, graceMs: number): void {
  if (job.status === 'paused' || job.stopReason === 'paused') return;
  if (!sourcesOf('paused').includes(job.status)) throw illegal(job, 'paused');
  if (job.status === 'running') {
    requestStop(tables, { jobId: job.id, epoch: job.epoch }, 'paused', graceMs);
    return;
  }
  tables.changeJob(job.id, { status: 'paused', waitingReason: null });
  say(tables, job.id, 'Job paused');
}

function resume(tables: Tables, job: JobRow): void {
  if (job.stopReason === 'paused') {
    requestStop(tables, { jobId: job.id, epoch: job.epoch }, 'resumed', 0);
    return;
  }
  if (!sourcesOf('resumed').includes(job.status)) throw illegal(job, 'resumed');
  tables.changeJob(job.id, { status: 'queued', queuedAt: tables.now(), waitingReason: null });
  say(tables, job.id, 'Job resumed, moving it to queued state');
  tables.announce('schedule');
}

const WAITING: readonly JobStatus[] = ['validating_files', 'queued', 'paused'];

function setPriority(tables: Tables, job: JobRow, priority: number): void {
  if (!WAITING.includes(job.status)) throw new TunefleetError('illegal_transition', `job ${job.id} is ${job.status}: only the priority of a waiting job can be changed`);
  if (job.priority === priority) return;
  tables.changeJob(job.id, { priority });
  say(tables, job.id, `Priority changed from ${job.priority} to ${priority}`);
  tables.announce('schedule');
}

function illegal(job: JobRow, transition: JobTransition): TunefleetError {
  return new TunefleetError('illegal_transition', `job ${job.id} is ${job.status} and cannot be ${transition}`, { details: { from: job.status, transition } });
}

function hasMetadata({ metadata }: JobRow, wanted: Readonly<Record<string, string>> | null | undefined): boolean {
  if (wanted === undefined) return true;
  if (wanted === null) return metadata === null || Object.keys(metadata).length === 0;
  return Object.entries(wanted).every(([key, value]) => metadata?.[key] === value);
}

export function newestFirst(a: { createdAt: Date; id: string }, b: { createdAt: Date; id: string }): number {
  return b.createdAt.getTime() - a.createdAt.getTime() || (a.id < b.id ? 1 : -1);
}

export function unknownAfter(after: string): TunefleetError {
  return new TunefleetError('not_found', `no such item: '${after}'`, { param: 'after' });
}

export function pageOrThrow<T extends { readonly id: string }>(all: readonly T[], after: string | undefined, limit: number): { items: T[]; hasMore: boolean } {
  const page = pageAfter(all, after, limit);
  if (page === null) throw unknownAfter(after ?? '');
  return page;
}

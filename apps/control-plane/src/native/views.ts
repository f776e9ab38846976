import type { AdapterView, CheckpointView, Failure, JobDetail, JobError, JobEvent, JobSummary, WorkerView } from '@tunefleet/contracts';
import type { AdapterRecord, AttemptCompany, AttemptRecord, CheckpointRecord, JobEventRecord, JobRecord, WorkerRecord } from '@tunefleet/ports';
import { eventData } from '../fine-tuning/job-view';
import { unixSeconds, unixSecondsOrNull } from '../http/time';
import { sourceView } from '../jobs/job-source';
import { companyView, mayShareWorker } from '../jobs/sharing-view';
import { waitingView } from '../jobs/waiting-view';

// Records as the native API shows them.

export function jobErrorView(failure: Failure | null): JobError | null {
  return failure === null ? null : { class: failure.class, code: failure.code, message: failure.message, param: failure.param, log_tail: [...failure.logTail] };
}

export function jobSummary(job: JobRecord): JobSummary {
  return {
    id: job.id,
    object: 'job',
    kind: job.kind,
    status: job.status,
    base_model: job.baseModel,
    priority: job.priority,
    metadata: job.metadata === null ? null : { ...job.metadata },
    created_at: unixSeconds(job.createdAt),
    queued_at: unixSecondsOrNull(job.queuedAt),
    started_at: unixSecondsOrNull(job.startedAt),
    finished_at: unixSecondsOrNull(job.finishedAt),
    estimated_finish: unixSecondsOrNull(job.estimatedFinish),
    step: job.step,
    total_steps: job.totalSteps,
    phase: job.phase,
    tokens_per_second: job.tokensPerSecond,
    ...waitingView(job),
    worker_selector: { ...job.workerSelector },
    memory_bytes_estimate: job.memoryBytesEstimate,
    may_share_worker: mayShareWorker(job),
    after: [...job.afterJobIds],
    source: sourceView(job),
    stop_requested: job.stopReason,
    error: jobErrorView(job.error),
  };
}

export function attemptView(attempt: AttemptRecord, { workerName, teamId, company }: { readonly workerName: string; readonly teamId: string; readonly company: AttemptCompany }): JobDetail['attempts'][number] {
  return {
    id: attempt.id,
    epoch: attempt.epoch,
    worker_id: attempt.workerId,
    worker_name: workerName,
    slot: attempt.slot,
    status: attempt.status,
    outcome: attempt.outcome,
    error: jobErrorView(attempt.failure),
    stop_reason: attempt.stopReason,
    step: attempt.step,
    micro_batch_size: attempt.microBatchSize,
    stuck: attempt.stuckAt !== null,
    resume_checkpoint_id: attempt.resumeCheckpointId,
    shared_worker_with: companyView(company.beside, teamId),
    gpu_seconds: company.gpuSeconds,
    assigned_at: unixSeconds(attempt.assignedAt),
    acknowledged_at: unixSecondsOrNull(attempt.acknowledgedAt),
    finished_at: unixSecondsOrNull(attempt.finishedAt),
  };
}

export function jobEventView(event: JobEventRecord): JobEvent {
  return { id: event.id, created_at: unixSeconds(event.createdAt), level: event.level, type: event.type, message: event.message, data: eventData(event) };
}

export function checkpointFilesView(checkpoint: CheckpointRecord): CheckpointView {
  return {
    id: checkpoint.id,
    object: 'checkpoint',
    job_id: checkpoint.jobId,
    attempt_id: checkpoint.attemptId,
    step: checkpoint.step,
    created_at: unixSeconds(checkpoint.createdAt),
    metrics: { ...checkpoint.metrics },
    files: [...checkpoint.artifacts],
  };
}

export function adapterView(adapter: AdapterRecord): AdapterView {
  return {
    id: adapter.id,
    object: 'adapter',
    name: adapter.name,
    base_model: adapter.baseModel,
    base_revision: adapter.baseRevision,
    tuner: adapter.tunerKind,
    job_id: adapter.jobId,
    created_at: unixSeconds(adapter.createdAt),
    files: [...adapter.artifacts],
  };
}

export function workerView(worker: WorkerRecord, runningJobs: number): WorkerView {
  const { device, drain } = worker;
  return {
    id: worker.id,
    object: 'worker',
    name: worker.name,
    status: worker.status,
    cordoned: worker.cordoned,
    cordon_reason: worker.cordonReason,
    drain: drain === null ? null : { mode: drain, state: runningJobs > 0 ? 'draining' : 'drained', deadline: unixSecondsOrNull(worker.drainDeadline) },
    version: worker.version,
    device: {
      kind: device.kind,
      name: device.name,
      backend: device.backend,
      backend_version: device.backendVersion,
      memory_bytes_total: device.memoryBytesTotal,
      memory_bytes_free: device.memoryBytesFree,
      bf16: device.bf16,
      threads: device.threads,
    },
    labels: { ...worker.labels },
    job_kinds: [...worker.jobKinds],
    models_on_disk: [...worker.modelsOnDisk],
    model_in_memory: worker.modelInMemory,
    slots: worker.slots,
    running_jobs: runningJobs,
    credit: worker.credit,
    last_seen_at: unixSeconds(worker.lastSeenAt),
  };
}

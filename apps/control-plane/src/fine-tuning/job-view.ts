import {
  fineTuneRequestSchema,
  fineTuneResultSchema,
  type FineTuneRequest,
  type FineTuningCheckpoint,
  type FineTuningEvent,
  type FineTuningJob,
} from '@tunefleet/contracts';
import { invariant } from '@tunefleet/foundation';
import type { CheckpointRecord, JobEventRecord, JobRecord, TeamRecord } from '@tunefleet/ports';
import { unixSeconds, unixSecondsOrNull } from '../http/time';
import { sourceView } from '../jobs/job-source';
import { checkpointModelName } from '../jobs/model-names';
import { mayShareWorker } from '../jobs/sharing-view';
import { waitingView } from '../jobs/waiting-view';

export function requestOf(job: JobRecord): FineTuneRequest {
  const parsed = fineTuneRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold a fine-tune request`);
  return parsed.data;
}

/** @param adapterId of the adapter the job has published, when it is still there */
export function fineTuningJobView(job: JobRecord, team: TeamRecord, adapterId: string | null): FineTuningJob {
  const request = requestOf(job);
  const { n_epochs = 'auto', batch_size = 'auto', learning_rate_multiplier = 'auto', beta = 'auto', ...others } = request.hyperparameters;
  const hyperparameters = { n_epochs, batch_size, learning_rate_multiplier, ...others };
  const result = job.result === null ? null : fineTuneResultSchema.parse(job.result);
  return {
    id: job.id,
    object: 'fine_tuning.job',
    created_at: unixSeconds(job.createdAt),
    model: job.baseModel,
    fine_tuned_model: job.status === 'succeeded' ? request.fineTunedModel : null,
    finished_at: unixSecondsOrNull(job.finishedAt),
    status: job.status,
    error: job.error === null ? null : { code: job.error.code, message: job.error.message, param: job.error.param },
    hyperparameters,
    method: methodView(request.method, hyperparameters, beta),
    organization_id: team.name,
    training_file: request.trainingFile,
    validation_file: request.validationFile,
    result_files: [...job.resultFileIds],
    trained_tokens: result?.trainedTokens ?? null,
    seed: request.seed,
    integrations: null,
    estimated_finish: unixSecondsOrNull(job.estimatedFinish),
    metadata: job.metadata === null ? null : { ...job.metadata },
    x_meta: {
      step: job.step,
      total_steps: job.totalSteps,
      phase: job.phase,
      tokens_per_second: job.tokensPerSecond,
      ...waitingView(job),
      worker_selector: { ...job.workerSelector },
      priority: job.priority,
      after: [...job.afterJobIds],
      source: sourceView(job),
      stop_requested: job.stopReason,
      adapter_id: adapterId,
      tuner: request.tuner,
      max_seq_length: request.maxSequenceLength,
      compute_dtype: request.computeDtype,
      memory_bytes_estimate: job.memoryBytesEstimate,
      may_share_worker: mayShareWorker(job),
      started_at: unixSecondsOrNull(job.startedAt),
      result,
    },
  };
}

function methodView(method: FineTuneRequest['method'], shown: FineTuningJob['hyperparameters'], beta: number | 'auto'): FineTuningJob['method'] {
  switch (method) {
    case undefined:
      return { type: 'supervised', supervised: { hyperparameters: shown } };
    case 'dpo':
      return { type: 'dpo', dpo: { hyperparameters: { ...shown, beta } } };
    case 'pretraining':
      return { type: 'pretraining', pretraining: { hyperparameters: shown } };
  }
}

export function eventView(event: JobEventRecord): FineTuningEvent {
  return {
    id: event.id,
    object: 'fine_tuning.job.event',
    created_at: unixSeconds(event.createdAt),
    level: event.level,
    message: event.message,
    type: event.type,
    data: eventData(event),
  };
}

/** Null unless it is an object: clients look fields up in it. */
export function eventData({ data }: JobEventRecord): Record<string, unknown> | null {
  return typeof data === 'object' && data !== null && !Array.isArray(data) ? { ...data } : null;
}

const CHECKPOINT_METRICS = [
  'train_loss',
  'train_mean_token_accuracy',
  'valid_loss',
  'valid_mean_token_accuracy',
  'full_valid_loss',
  'full_valid_mean_token_accuracy',
] as const;

export function checkpointView(checkpoint: CheckpointRecord, fineTunedModel: string): FineTuningCheckpoint {
  const known = CHECKPOINT_METRICS.flatMap((name) => (checkpoint.metrics[name] === undefined ? [] : [[name, checkpoint.metrics[name]] as const]));
  return {
    id: checkpoint.id,
    object: 'fine_tuning.job.checkpoint',
    created_at: unixSeconds(checkpoint.createdAt),
    fine_tuning_job_id: checkpoint.jobId,
    fine_tuned_model_checkpoint: checkpointModelName(fineTunedModel, checkpoint.step),
    step_number: checkpoint.step,
    metrics: { step: checkpoint.step, ...Object.fromEntries(known) },
  };
}

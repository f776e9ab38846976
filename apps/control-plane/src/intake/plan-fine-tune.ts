import { fineTuneSpecSchema, type ArtifactRef, type BaseModelRef, type FineTuneRequest, type FineTuneSpec } from '@tunefleet/contracts';
import type { MemoryModel } from '@tunefleet/domain-scheduling';
import { TunefleetError } from '@tunefleet/foundation';
import type { CausalLmDescription } from '@tunefleet/ml-models/specs';
import { specHalfOf, textPositions, type TunerSpec } from '@tunefleet/ml-tuners/specs';
import type { JobAdmission, WorkerRecord } from '@tunefleet/ports';
import type { CheckedFile } from './check-file';
import { settleHyperparameters, stepsOf } from './hyperparameters';
import { fineTuneShape } from './job-shape';
import { dtypeForEstimate, fineTuneMemory, fineTuneMemoryModel, type MemoryNeed } from './memory';
import { planSharing, type Sharing } from './sharing';
import { settleSequenceLength, settleTextRows } from './sequence-length';

type FileFacts = Pick<CheckedFile, 'artifact' | 'report' | 'lengths'>;

export interface FineTuneFacts {
  readonly request: FineTuneRequest;
  readonly base: BaseModelRef;
  readonly model: CausalLmDescription;
  readonly tuner: TunerSpec;
  readonly startAdapter: readonly ArtifactRef[] | null;
  readonly training: FileFacts;
  readonly validation: FileFacts | null;
  readonly workers: readonly Pick<WorkerRecord, 'device'>[];
}

export interface FineTunePlan {
  /** What the record's request gets in place of its `auto`s and nulls. */
  readonly settled: Pick<FineTuneRequest, 'hyperparameters' | 'tuner' | 'maxSequenceLength'>;
  readonly workerSpec: FineTuneSpec;
  readonly totalSteps: number;
  readonly memory: MemoryNeed;
  readonly memoryModel: MemoryModel;
  /** Key of what is measured of jobs like this one. */
  readonly shape: string;
  /** With whom it may share a worker, if its team lets it; null: with nobody. */
  readonly sharing: NonNullable<JobAdmission['sharing']> | null;
  readonly notices: readonly string[];
}

/** Settles everything a worker must know. @throws invalid_input for what only shows once model, tuner and files are known together */
export function planFineTune(facts: FineTuneFacts): FineTunePlan {
  const { request, base, model, tuner, startAdapter, training, validation, workers } = facts;
  if (validation !== null && validation.report.format !== training.report.format) {
    throw new TunefleetError('invalid_input', `validation_file holds ${validation.report.format} rows but training_file ${training.report.format} rows: write both in one format`, { reason: 'mixed_formats', param: 'validation_file' });
  }
  const limits = { asked: request.maxSequenceLength, maxPositions: textPositions(tuner, model.maxPositions) };
  const isText = request.method === 'pretraining';
  const files = [{ param: 'training_file', lengths: training.lengths }, ...(validation === null ? [] : [{ param: 'validation_file', lengths: validation.lengths }])];
  const length = isText ? settleTextRows(limits) : settleSequenceLength({ ...limits, files });
  // Documents are joined and cut; the worker counts their tokens exactly.
  const examples = isText ? Math.max(1, Math.ceil(training.lengths.tokensExpected / length.maxSequenceLength)) : training.report.examples;
  const hyperparameters = settleHyperparameters(request.hyperparameters, examples, specHalfOf(tuner).learningRate, request.method);
  const workerSpec = fineTuneSpecSchema.parse({
    base,
    ...(startAdapter === null ? {} : { startAdapter }),
    trainingFile: training.artifact,
    ...(validation === null ? {} : { validationFile: validation.artifact }),
    tuner,
    ...(request.method === undefined ? {} : { objective: { type: request.method, beta: hyperparameters.beta } }),
    computeDtype: request.computeDtype,
    seed: request.seed,
    epochs: hyperparameters.n_epochs,
    batchSize: hyperparameters.batch_size,
    maxSequenceLength: length.maxSequenceLength,
    learningRate: hyperparameters.learning_rate,
    // Absent ones get the contract's defaults.
    microBatchSize: hyperparameters.micro_batch_size,
    schedule: hyperparameters.schedule,
    warmupRatio: hyperparameters.warmup_ratio,
    weightDecay: hyperparameters.weight_decay,
    maxGradNorm: hyperparameters.max_grad_norm,
    // 0 is no noise, as in TRL.
    neftuneNoiseAlpha: hyperparameters.neftune_noise_alpha || undefined,
    checkpointEverySteps: hyperparameters.checkpoint_every_steps,
    validateEverySteps: hyperparameters.validate_every_steps,
  });
  const sized = { model, tuner, tokens: length.tokensExpected, dtype: dtypeForEstimate(request.computeDtype, workers), rowsPerExample: request.method === 'dpo' ? 2 : 1 };
  const memory = fineTuneMemory(sized);
  const tokensExpected = isText ? examples * length.maxSequenceLength : training.lengths.tokensExpected;
  const shared = planSharing({ request, workerSpec, model, tuner, examples, tokensExpected, memory });
  return {
    settled: { hyperparameters, tuner: workerSpec.tuner, maxSequenceLength: length.maxSequenceLength },
    workerSpec,
    totalSteps: stepsOf(hyperparameters, examples),
    memory,
    memoryModel: fineTuneMemoryModel(sized),
    shape: fineTuneShape({ base, tuner, tokens: length.tokensExpected, batchSize: hyperparameters.batch_size, pairs: request.method === 'dpo' }),
    sharing: 'sharing' in shared ? shared.sharing : null,
    notices: [...repetitionNotices(training, validation), ...length.notices, ...sharingNotices(request, shared)],
  };
}

function repetitionNotices(training: FileFacts, validation: FileFacts | null): string[] {
  const notices: string[] = [];
  const { duplicates } = training.report;
  if (duplicates > 0) notices.push(`training_file: ${rows(duplicates)} exactly like an earlier one: they weigh more than the others`);
  const overlap = validation?.report.overlap ?? 0;
  if (overlap > 0) notices.push(`validation_file: ${rows(overlap)} also in training_file: the validation loss will look better than it is`);
  return notices;
}

/** Said to those who asked for it. */
function sharingNotices({ share }: FineTuneRequest, shared: Sharing): string[] {
  return share === true && 'alone' in shared ? [`share: the job gets a worker to itself: ${shared.alone}`] : [];
}

function rows(count: number): string {
  return count === 1 ? '1 row is' : `${count} rows are`;
}

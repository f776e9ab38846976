import { z } from 'zod';
import { fineTuneResultSchema } from '../jobs/fine-tune';
import { waitingCodeSchema } from '../waiting';
import { afterSchema, boundedListSchema, limitSchema, listSchema, metadataSchema, unixSecondsSchema } from './common';

function autoOr<T extends z.ZodType>(value: T) {
  return z.union([z.literal('auto'), value]);
}

/** Model ids as users write them: a catalogue or hub id, or the name of a tuned model. */
export const modelNameSchema = z.string().min(1).max(300);
export const fileIdSchema = z.string().min(1).max(100);
export const prioritySchema = z.int().min(-100).max(100);
/** Jobs that must have succeeded before this one starts. */
export const afterJobsSchema = z.array(z.string().min(1).max(100)).max(16);
/** Labels a worker must have to run the job. */
export const workerSelectorSchema = z
  .record(
    z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/, "a label's name: at most 63 letters, digits, dots, slashes, hyphens and underscores"),
    z.string().regex(/^[A-Za-z0-9._/-]{0,63}$/, "a label's value: at most 63 letters, digits, dots, slashes, hyphens and underscores"),
  )
  .refine((labels) => Object.keys(labels).length <= 16, 'at most 16 labels');
export const maxSequenceLengthSchema = z.int().min(8).max(131_072);

/**
 * OpenAI's three supervised hyper-parameters and ours. The meaning and bounds of ours are those of `fineTuneSpecSchema`;
 * `learning_rate` is absolute and excludes `learning_rate_multiplier`, which multiplies the tuner's default rate.
 */
export const supervisedHyperparametersSchema = z.strictObject({
  n_epochs: autoOr(z.int().min(1).max(50)).optional(),
  batch_size: autoOr(z.int().min(1).max(256)).optional(),
  learning_rate_multiplier: autoOr(z.number().positive().max(10_000)).optional(),
  learning_rate: autoOr(z.number().positive().max(1)).optional(),
  schedule: z.enum(['cosine', 'linear', 'constant']).optional(),
  warmup_ratio: z.number().min(0).max(0.5).optional(),
  weight_decay: z.number().min(0).max(1).optional(),
  max_grad_norm: z.number().positive().max(1000).optional(),
  neftune_noise_alpha: z.number().min(0).max(1000).optional(),
  micro_batch_size: z.int().min(1).max(256).optional(),
  checkpoint_every_steps: z.int().min(0).max(1_000_000).optional(),
  validate_every_steps: z.int().min(0).max(1_000_000).optional(),
});
export type SupervisedHyperparameters = z.infer<typeof supervisedHyperparametersSchema>;

/** OpenAI's `beta`, and all that supervised training has. Larger: closer to the policy the run starts from. */
export const dpoHyperparametersSchema = supervisedHyperparametersSchema.extend({ beta: autoOr(z.number().positive().max(2)).optional() });
export type DpoHyperparameters = z.infer<typeof dpoHyperparametersSchema>;

/** `pretraining`, on plain text, is ours. `reinforcement` does not run; it is parsed so that the answer can say what to use instead. */
export const methodSchema = z.strictObject({
  type: z.enum(['supervised', 'dpo', 'pretraining', 'reinforcement']).default('supervised'),
  supervised: z.strictObject({ hyperparameters: supervisedHyperparametersSchema.optional() }).optional(),
  dpo: z.strictObject({ hyperparameters: dpoHyperparametersSchema.optional() }).optional(),
  pretraining: z.strictObject({ hyperparameters: supervisedHyperparametersSchema.optional() }).optional(),
  reinforcement: z.unknown().optional(),
});

/**
 * `POST /v1/fine_tuning/jobs`. `tuner`, `max_seq_length`, `compute_dtype`, `priority`, `worker_selector`, `share` and `after` are extensions;
 * the tuner's fields are checked by its own schema where the tuner is known.
 */
export const createFineTuningJobSchema = z.strictObject({
  model: modelNameSchema,
  training_file: fileIdSchema,
  validation_file: fileIdSchema.optional(),
  suffix: z
    .string()
    .regex(/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,63})$/, '1 to 64 letters, digits, ".", "_" or "-", beginning with a letter or digit')
    .optional(),
  seed: z.int().min(0).max(2_147_483_647).optional(),
  method: methodSchema.optional(),
  hyperparameters: supervisedHyperparametersSchema.optional(),
  integrations: z.array(z.unknown()).max(5).optional(),
  metadata: metadataSchema.optional(),
  tuner: z.object({ kind: z.string().min(1).max(40) }).catchall(z.unknown()).optional(),
  max_seq_length: maxSequenceLengthSchema.optional(),
  compute_dtype: z.enum(['auto', 'f32', 'bf16']).optional(),
  priority: prioritySchema.optional(),
  worker_selector: workerSelectorSchema.optional(),
  /** False: a worker to itself, also where the team lets its small jobs share. */
  share: z.boolean().optional(),
  after: afterJobsSchema.optional(),
});
export type CreateFineTuningJob = z.input<typeof createFineTuningJobSchema>;

/** `metadata[key]=value` pairs, or null for the literal `metadata=null`, are folded into `metadata` beforehand. */
export const listFineTuningJobsQuerySchema = z.strictObject({
  limit: limitSchema(100, 20),
  after: afterSchema,
  metadata: metadataSchema.nullable().optional(),
});

export const fineTuningJobStatusSchema = z.enum(['validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled']);

export const jobSourceSchema = z.object({ job_id: z.string(), relation: z.enum(['clone', 'retry']) });
/** `resumed`: a pause that was taken back before it took effect. */
export const stopReasonSchema = z.enum(['paused', 'resumed', 'preempted', 'drained']);

/** Hyper-parameters as a job shows them: numbers once known, `auto` before. */
export const shownHyperparametersSchema = supervisedHyperparametersSchema.required({ n_epochs: true, batch_size: true, learning_rate_multiplier: true });

export const shownDpoHyperparametersSchema = dpoHyperparametersSchema.required({ n_epochs: true, batch_size: true, learning_rate_multiplier: true, beta: true });

export const apiJobErrorSchema = z.object({ code: z.string(), message: z.string(), param: z.string().nullable() });

export const fineTuningJobSchema = z.object({
  id: z.string(),
  object: z.literal('fine_tuning.job'),
  created_at: unixSecondsSchema,
  model: z.string(),
  fine_tuned_model: z.string().nullable(),
  finished_at: unixSecondsSchema.nullable(),
  status: fineTuningJobStatusSchema,
  error: apiJobErrorSchema.nullable(),
  hyperparameters: shownHyperparametersSchema,
  method: z.discriminatedUnion('type', [
    z.object({ type: z.literal('supervised'), supervised: z.object({ hyperparameters: shownHyperparametersSchema }) }),
    z.object({ type: z.literal('dpo'), dpo: z.object({ hyperparameters: shownDpoHyperparametersSchema }) }),
    z.object({ type: z.literal('pretraining'), pretraining: z.object({ hyperparameters: shownHyperparametersSchema }) }),
  ]),
  organization_id: z.string(),
  training_file: z.string(),
  validation_file: z.string().nullable(),
  result_files: z.array(z.string()),
  trained_tokens: z.int().min(0).nullable(),
  seed: z.int().min(0),
  integrations: z.array(z.unknown()).max(5).nullable(),
  estimated_finish: unixSecondsSchema.nullable(),
  metadata: metadataSchema.nullable(),
  /** Extensions, under one key so that they can never collide with a new field of OpenAI's. */
  x_meta: z.object({
    step: z.int().min(0),
    total_steps: z.int().min(0).nullable(),
    phase: z.string().nullable(),
    tokens_per_second: z.number().nullable(),
    /** Why a queued job is not running yet, in one sentence. */
    waiting_reason: z.string().nullable(),
    waiting_code: waitingCodeSchema.nullable(),
    queue_position: z.int().min(1).nullable(),
    estimated_start: unixSecondsSchema.nullable(),
    priority: z.int(),
    worker_selector: workerSelectorSchema,
    /** Jobs it starts after. */
    after: z.array(z.string()),
    /** The job it repeats. */
    source: jobSourceSchema.nullable(),
    /** The running job has been asked to write a checkpoint and leave its worker. */
    stop_requested: stopReasonSchema.nullable(),
    adapter_id: z.string().nullable(),
    tuner: z.record(z.string(), z.unknown()),
    max_seq_length: z.int().nullable(),
    compute_dtype: z.enum(['auto', 'f32', 'bf16']),
    memory_bytes_estimate: z.int().min(0).nullable(),
    may_share_worker: z.boolean().nullable(),
    started_at: unixSecondsSchema.nullable(),
    result: fineTuneResultSchema.nullable(),
  }),
});
export type FineTuningJob = z.infer<typeof fineTuningJobSchema>;
export const fineTuningJobListSchema = listSchema(fineTuningJobSchema);

export const listEventsQuerySchema = z.strictObject({ limit: limitSchema(100, 20), after: afterSchema });
export const fineTuningEventSchema = z.object({
  id: z.string(),
  object: z.literal('fine_tuning.job.event'),
  created_at: unixSecondsSchema,
  level: z.enum(['info', 'warn', 'error']),
  message: z.string(),
  type: z.enum(['message', 'metrics']),
  data: z.record(z.string(), z.unknown()).nullable(),
});
export type FineTuningEvent = z.infer<typeof fineTuningEventSchema>;
export const fineTuningEventListSchema = listSchema(fineTuningEventSchema);

export const listCheckpointsQuerySchema = z.strictObject({ limit: limitSchema(100, 10), after: afterSchema });
export const fineTuningCheckpointSchema = z.object({
  id: z.string(),
  object: z.literal('fine_tuning.job.checkpoint'),
  created_at: unixSecondsSchema,
  fine_tuning_job_id: z.string(),
  fine_tuned_model_checkpoint: z.string(),
  step_number: z.int().min(0),
  metrics: z.object({
    step: z.number().optional(),
    train_loss: z.number().optional(),
    train_mean_token_accuracy: z.number().optional(),
    valid_loss: z.number().optional(),
    valid_mean_token_accuracy: z.number().optional(),
    full_valid_loss: z.number().optional(),
    full_valid_mean_token_accuracy: z.number().optional(),
  }),
});
export type FineTuningCheckpoint = z.infer<typeof fineTuningCheckpointSchema>;
export const fineTuningCheckpointListSchema = boundedListSchema(fineTuningCheckpointSchema);

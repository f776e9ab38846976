import { z } from 'zod';
import { evalMetricSchema, evalResultSchema } from '../jobs/eval';
import { afterSchema, boundedListSchema, limitSchema, metadataSchema, unixSecondsSchema } from '../openai/common';
import { afterJobsSchema, fileIdSchema, fineTuningJobStatusSchema, maxSequenceLengthSchema, modelNameSchema, prioritySchema, stopReasonSchema, workerSelectorSchema } from '../openai/fine-tuning';
import { waitingCodeSchema } from '../waiting';
import { jobErrorSchema } from './jobs';

/**
 * `POST /api/v1/evals`: scores `model`, and every model of `compare_to` on the same rows. All must stand on one base model.
 * The result compares the first of `compare_to` order (`model` comes last) with the last.
 */
export const createEvalSchema = z.strictObject({
  model: modelNameSchema,
  compare_to: z.union([modelNameSchema.transform((name) => [name]), z.array(modelNameSchema).max(7)]).optional(),
  file: fileIdSchema,
  metric: evalMetricSchema,
  /** Only the first rows. */
  limit: z.int().min(1).max(10_000_000).optional(),
  /** Greedy free text for this many first rows. */
  samples: z.int().min(0).max(100).optional(),
  max_seq_length: maxSequenceLengthSchema.optional(),
  compute_dtype: z.enum(['auto', 'f32', 'bf16']).optional(),
  /** The base's linear maps in 4 bits, as QLoRA has them while it trains. */
  base_quantisation: z.strictObject({ type: z.enum(['nf4', 'fp4']), double_quant: z.boolean().default(true) }).optional(),
  priority: prioritySchema.optional(),
  worker_selector: workerSelectorSchema.optional(),
  metadata: metadataSchema.optional(),
  after: afterJobsSchema.optional(),
});
export const cloneEvalSchema = createEvalSchema.partial();
export type CreateEval = z.input<typeof createEvalSchema>;

export const evalJobSchema = z.object({
  id: z.string(),
  object: z.literal('eval_job'),
  created_at: unixSecondsSchema,
  started_at: unixSecondsSchema.nullable(),
  finished_at: unixSecondsSchema.nullable(),
  status: fineTuningJobStatusSchema,
  base_model: z.string(),
  model: z.string(),
  compare_to: z.array(z.string()),
  file: z.string(),
  metric: evalMetricSchema,
  limit: z.int().nullable(),
  samples: z.int(),
  max_seq_length: z.int().nullable(),
  priority: z.int(),
  metadata: metadataSchema.nullable(),
  step: z.int().min(0),
  total_steps: z.int().min(0).nullable(),
  phase: z.string().nullable(),
  waiting_reason: z.string().nullable(),
  waiting_code: waitingCodeSchema.nullable(),
  queue_position: z.int().min(1).nullable(),
  estimated_start: unixSecondsSchema.nullable(),
  worker_selector: workerSelectorSchema,
  after: z.array(z.string()),
  stop_requested: stopReasonSchema.nullable(),
  error: jobErrorSchema.nullable(),
  result: evalResultSchema.nullable(),
  result_files: z.array(z.string()),
});
export type EvalJob = z.infer<typeof evalJobSchema>;
/**
 * `GET /api/v1/evals` lists, newest first; `GET /api/v1/evals/:id`; `POST /api/v1/evals/:id/cancel`.
 * `GET /api/v1/evals/:id/items` streams `application/x-ndjson`: one `EvalItem` a line, once the eval has succeeded.
 */
export const evalJobListSchema = boundedListSchema(evalJobSchema);

export const listEvalsQuerySchema = z.strictObject({
  limit: limitSchema(100, 20),
  after: afterSchema,
  status: fineTuningJobStatusSchema.optional(),
  metadata: metadataSchema.nullable().optional(),
});

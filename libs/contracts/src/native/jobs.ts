import { z } from 'zod';
import { failureClassSchema } from '../failure';
import { jobKinds } from '../jobs';
import type { JobKind } from '../jobs';
import { afterSchema, boundedListSchema, limitSchema, metadataSchema, unixSecondsSchema } from '../openai/common';
import { waitingCodeSchema } from '../waiting';
import { createFineTuningJobSchema, fineTuningJobStatusSchema, jobSourceSchema, prioritySchema, stopReasonSchema, workerSelectorSchema } from '../openai/fine-tuning';

export const jobKindSchema = z.enum(Object.keys(jobKinds) as [JobKind, ...JobKind[]]);

/** Why a job or an attempt failed: who acts (`class`), the reason for programs (`code`), and what to do, in words. */
export const jobErrorSchema = z.object({
  class: failureClassSchema,
  code: z.string(),
  message: z.string(),
  param: z.string().nullable(),
  log_tail: z.array(z.string()),
});
export type JobError = z.infer<typeof jobErrorSchema>;

export const jobSummarySchema = z.object({
  id: z.string(),
  object: z.literal('job'),
  kind: jobKindSchema,
  status: fineTuningJobStatusSchema,
  base_model: z.string(),
  priority: z.int(),
  metadata: metadataSchema.nullable(),
  created_at: unixSecondsSchema,
  queued_at: unixSecondsSchema.nullable(),
  started_at: unixSecondsSchema.nullable(),
  finished_at: unixSecondsSchema.nullable(),
  estimated_finish: unixSecondsSchema.nullable(),
  step: z.int().min(0),
  total_steps: z.int().min(0).nullable(),
  phase: z.string().nullable(),
  tokens_per_second: z.number().nullable(),
  /** Why it is not running yet, in one sentence; null when it is not waiting. */
  waiting_reason: z.string().nullable(),
  /** The same for programs. */
  waiting_code: waitingCodeSchema.nullable(),
  /** From 1, over all teams: its turn if nothing else comes. A few seconds old. */
  queue_position: z.int().min(1).nullable(),
  /** When its turn will come by what was measured of jobs like those before it; null: that cannot be told. */
  estimated_start: unixSecondsSchema.nullable(),
  /** Labels its worker must have. */
  worker_selector: workerSelectorSchema,
  memory_bytes_estimate: z.int().min(0).nullable(),
  /** Other jobs on its base model may run beside it on its worker; null until its files are validated. */
  may_share_worker: z.boolean().nullable(),
  /** Jobs that must have succeeded before this one starts. */
  after: z.array(z.string()),
  source: jobSourceSchema.nullable(),
  /** The running job has been asked to write a checkpoint and leave its worker. */
  stop_requested: stopReasonSchema.nullable(),
  error: jobErrorSchema.nullable(),
});
export type JobSummary = z.infer<typeof jobSummarySchema>;

/** Jobs beside one on a worker: those of the same team by their ids, of other teams only how many. */
export const companySchema = z.object({ jobs: z.array(z.string()), other_teams_jobs: z.int().min(0) });
export type Company = z.infer<typeof companySchema>;

export const attemptSchema = z.object({
  id: z.string(),
  epoch: z.int().min(0),
  worker_id: z.string(),
  worker_name: z.string(),
  /** Which of the worker's places it holds, from 0. */
  slot: z.int().min(0),
  status: z.enum(['assigned', 'running', 'finished']),
  outcome: z.enum(['succeeded', 'failed', 'stopped', 'lost', 'revoked']).nullable(),
  error: jobErrorSchema.nullable(),
  /** Why it was asked to stop. */
  stop_reason: stopReasonSchema.nullable(),
  /** The last step it told of. */
  step: z.int().min(0),
  /** Examples per forward pass. */
  micro_batch_size: z.int().min(1).nullable(),
  /** Its steps have stopped coming. */
  stuck: z.boolean(),
  resume_checkpoint_id: z.string().nullable(),
  /** Who shared the worker with it, at any time. */
  shared_worker_with: companySchema,
  /** What its team is charged for it, so far: of every second the nth part while n jobs held the worker. */
  gpu_seconds: z.number().min(0),
  assigned_at: unixSecondsSchema,
  acknowledged_at: unixSecondsSchema.nullable(),
  finished_at: unixSecondsSchema.nullable(),
});

/** A job with all that is on record about it. `spec` is the request as accepted, `worker_spec` what a worker gets. */
export const jobDetailSchema = jobSummarySchema.extend({
  spec: z.record(z.string(), z.unknown()),
  worker_spec: z.record(z.string(), z.unknown()).nullable(),
  result: z.record(z.string(), z.unknown()).nullable(),
  result_files: z.array(z.string()),
  adapter_id: z.string().nullable(),
  /** Who shares its worker with it now. */
  shares_worker_with: companySchema,
  attempts: z.array(attemptSchema),
});
export type JobDetail = z.infer<typeof jobDetailSchema>;
export const jobListSchema = boundedListSchema(jobSummarySchema);

/** `POST /api/v1/jobs/:id/priority`. */
export const changePrioritySchema = z.strictObject({ priority: prioritySchema });

/**
 * `POST /api/v1/jobs/:id/clone`: what the copy has instead, in the fields of the request that creates a job of that kind. What the original
 * left open (`auto`) is settled anew; its seed is kept. `POST …/retry` takes a job that has failed or was cancelled and changes nothing.
 */
export const cloneJobSchema = z.looseObject({}).optional();
export const cloneFineTuningJobSchema = createFineTuningJobSchema.partial();
export type CloneJob = Readonly<Record<string, unknown>>;

export const listJobsQuerySchema = z.strictObject({
  kind: jobKindSchema.optional(),
  status: fineTuningJobStatusSchema.optional(),
  limit: limitSchema(100, 20),
  after: afterSchema,
  metadata: metadataSchema.nullable().optional(),
});

export const listMetricsQuerySchema = z.strictObject({
  name: z.string().min(1).max(100).optional(),
  /** Only later steps. */
  since_step: z
    .string()
    .regex(/^\d{1,10}$/, 'a whole number')
    .transform(Number)
    .optional(),
  limit: limitSchema(10_000, 1000),
});

/** Points by step, then name. A step is never cut in two: go on with `since_step` = the last step seen. */
export const metricListSchema = z.object({
  object: z.literal('list'),
  data: z.array(z.object({ name: z.string(), step: z.int().min(0), value: z.number() })),
  has_more: z.boolean(),
});
export type MetricList = z.infer<typeof metricListSchema>;
export type MetricPoint = MetricList['data'][number];

export const jobEventSchema = z.object({
  id: z.string(),
  created_at: unixSecondsSchema,
  level: z.enum(['info', 'warn', 'error']),
  type: z.enum(['message', 'metrics']),
  message: z.string(),
  data: z.record(z.string(), z.unknown()).nullable(),
});
export const jobEventListSchema = boundedListSchema(jobEventSchema);
export type JobEvent = z.infer<typeof jobEventSchema>;

/**
 * What `GET /api/v1/jobs/:id/events/stream` sends, by SSE event name. After a reconnect with `Last-Event-ID` the metrics of the last step
 * seen may come once more; events do not. `end` is the last message.
 */
export const jobStreamSchemas = {
  event: jobEventSchema,
  metrics: z.object({ step: z.int().min(0), values: z.record(z.string(), z.number()) }),
  job: jobSummarySchema,
  end: z.object({ status: fineTuningJobStatusSchema }),
} as const;

export type JobStreamMessage =
  | { readonly type: 'event'; readonly data: JobEvent }
  | { readonly type: 'metrics'; readonly data: z.infer<typeof jobStreamSchemas.metrics> }
  | { readonly type: 'job'; readonly data: JobSummary }
  | { readonly type: 'end'; readonly data: z.infer<typeof jobStreamSchemas.end> };

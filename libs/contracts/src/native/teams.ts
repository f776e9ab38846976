import { z } from 'zod';

const boundSchema = z.int().min(0).max(1_000_000_000);
const weightSchema = z.number().min(0.01).max(1000);
const hoursSchema = z.number().min(0).max(1e9);
const bytesSchema = z.int().min(0);

/**
 * `GET /api/v1/teams` and `/api/v1/teams/:name`. Quotas: null is no bound. Jobs beyond the bound of running ones wait; jobs and files beyond the
 * others are refused when they are sent.
 */
export const teamSchema = z.object({
  id: z.string(),
  object: z.literal('team'),
  name: z.string(),
  /** A team of weight 2 is due twice the GPU time of one of weight 1. */
  weight: z.number().positive(),
  /** Its small jobs may share a worker with others on the same base model, those of other teams that allow it, too. */
  shares_workers: z.boolean(),
  quotas: z.object({
    running_jobs: z.int().nullable(),
    gpu_hours_per_month: z.number().nullable(),
    queued_jobs: z.int().nullable(),
    storage_bytes: z.int().nullable(),
  }),
  usage: z.object({
    running_jobs: z.int(),
    /** Of this calendar month (UTC). */
    gpu_hours_month: z.number(),
    /** Each hour is halved for every seven days since; who has the least for its weight comes first. */
    gpu_hours_decayed: z.number(),
    queued_jobs: z.int(),
    storage_bytes: z.int(),
  }),
});
export type TeamView = z.infer<typeof teamSchema>;
export const teamListSchema = z.object({ object: z.literal('list'), data: z.array(teamSchema), has_more: z.literal(false) });

/** `PUT /api/v1/teams/:name/quota`: all of it; what is left out, or null, has no bound. */
export const putQuotaSchema = z.strictObject({
  weight: weightSchema.default(1),
  running_jobs: boundSchema.optional(),
  gpu_hours_per_month: hoursSchema.optional(),
  queued_jobs: boundSchema.optional(),
  storage_bytes: bytesSchema.optional(),
});
export type PutQuota = z.input<typeof putQuotaSchema>;

/** `PATCH /api/v1/teams/:name`: changes what is given; null lifts a bound. `shares_workers` counts for jobs submitted from then on. */
export const changeTeamSchema = z.strictObject({
  weight: weightSchema.optional(),
  shares_workers: z.boolean().optional(),
  running_jobs: boundSchema.nullable().optional(),
  gpu_hours_per_month: hoursSchema.nullable().optional(),
  queued_jobs: boundSchema.nullable().optional(),
  storage_bytes: bytesSchema.nullable().optional(),
});
export type ChangeTeam = z.input<typeof changeTeamSchema>;

import { z } from 'zod';
import { unixSecondsSchema } from '../openai/common';

const DAY_SECONDS = 86_400;
const patternSchema = z.string().regex(/^[A-Za-z0-9._/*-]{1,100}$/, 'letters, digits, ". _ / -", and * for any text; at most 100');

/** `POST /api/v1/workers/tokens`. */
export const createWorkerTokenSchema = z
  .strictObject({
    note: z.string().min(1).max(400).optional(),
    /** How many workers may join with it. Words for what has no bound, because a null means the same as an absent field. */
    uses: z.union([z.int().min(1).max(10_000), z.literal('any')]).default(1),
    expires_in_seconds: z.union([z.int().min(1).max(365 * DAY_SECONDS), z.literal('never')]).default(DAY_SECONDS),
    /** What these workers may be called. Left out: anything. */
    name: patternSchema.optional(),
    /** The labels they may offer, with patterns of their values. Left out: any. */
    labels: z
      .record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/, 'a label name'), z.string().regex(/^[A-Za-z0-9._/*-]{0,63}$/, 'a label value, * for any text'))
      .refine((labels) => Object.keys(labels).length <= 32, 'at most 32 labels')
      .optional(),
  })
  .prefault({});
export type CreateWorkerToken = z.input<typeof createWorkerTokenSchema>;

/** `GET /api/v1/workers/tokens`, `POST /api/v1/workers/tokens/:id/revoke`. */
export const workerTokenSchema = z.object({
  id: z.string(),
  object: z.literal('worker_token'),
  note: z.string().nullable(),
  state: z.enum(['usable', 'revoked', 'expired', 'used_up']),
  uses: z.int(),
  max_uses: z.int().nullable(),
  name: z.string().nullable(),
  labels: z.record(z.string(), z.string()).nullable(),
  created_at: unixSecondsSchema,
  expires_at: unixSecondsSchema.nullable(),
  last_used_at: unixSecondsSchema.nullable(),
});
export type WorkerTokenView = z.infer<typeof workerTokenSchema>;
export const workerTokenListSchema = z.object({ object: z.literal('list'), data: z.array(workerTokenSchema), has_more: z.literal(false) });

/** The answer to the creation, and the only one that holds the token itself: what a worker gets as TUNEFLEET_WORKER_TOKEN. */
export const newWorkerTokenSchema = workerTokenSchema.extend({ token: z.string() });
export type NewWorkerTokenView = z.infer<typeof newWorkerTokenSchema>;

/** `POST /api/v1/workers/:id/revoke`. */
export const revokeWorkerSchema = z.strictObject({ reason: z.string().min(1).max(400).optional() }).optional();

export const revokedWorkerSchema = z.object({
  id: z.string(),
  object: z.literal('worker.revoked'),
  revoked: z.literal(true),
  /** Jobs taken back from it; they go on elsewhere from their last checkpoint. */
  released_jobs: z.int(),
});
export type RevokedWorkerView = z.infer<typeof revokedWorkerSchema>;

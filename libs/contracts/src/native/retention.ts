import { z } from 'zod';

/** What piles up, in the order in which it is removed: blobs last, once what named them is gone. */
export const RETENTION_KINDS = ['outbox', 'events', 'metrics', 'uploads', 'checkpoints', 'attempts', 'artifacts'] as const;
export type RetentionKind = (typeof RETENTION_KINDS)[number];

const SECONDS_MAX = 10 * 366 * 86_400;

export const retentionRuleSchema = z.strictObject({
  older_than_seconds: z.int().min(0).max(SECONDS_MAX),
  /** The newest so many of each job stay, however old: of checkpoints and events. */
  keep: z.int().min(0).max(100_000).optional(),
});

/** `POST /api/v1/retention`: without `rules` the defaults of every kind. */
export const runRetentionSchema = z.strictObject({ apply: z.boolean().default(false), rules: z.partialRecord(z.enum(RETENTION_KINDS), retentionRuleSchema).optional() });

export const retentionReportSchema = z.object({
  object: z.literal('retention.report'),
  /** False: a dry run, nothing was removed. */
  applied: z.boolean(),
  /** False: its time was over before everything was removed; ask again for the rest. */
  complete: z.boolean(),
  data: z.array(
    z.object({
      kind: z.enum(RETENTION_KINDS),
      older_than_seconds: z.number().min(0),
      keep: z.int().min(0),
      /** Removed, or in a dry run what would be. */
      rows: z.int().min(0),
      bytes: z.int().min(0),
    }),
  ),
});
export type RetentionReport = z.infer<typeof retentionReportSchema>;

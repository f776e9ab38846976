import { z } from 'zod';

const DAY_MS = 86_400_000;
/** Longest span of one report. */
export const USAGE_DAYS_MAX = 366;

const daySchema = z.iso.date('must be a day such as 2026-11-25 (UTC)');

/** `GET /api/v1/usage`: days in UTC, both included. Default: the last 30 days. */
export const usageQuerySchema = z
  .strictObject({ from: daySchema.optional(), to: daySchema.optional(), team: z.string().min(1).max(100).optional() })
  .superRefine(({ from, to }, context) => {
    if (from === undefined || to === undefined) return;
    const days = (Date.parse(to) - Date.parse(from)) / DAY_MS + 1;
    if (days < 1) context.addIssue({ code: 'custom', path: ['to'], message: `${to} is before ${from}` });
    if (days > USAGE_DAYS_MAX) context.addIssue({ code: 'custom', path: ['from'], message: `${days} days were asked for; a report covers ${USAGE_DAYS_MAX} at the most` });
  });

export const usageDaySchema = z.object({
  object: z.literal('usage.day'),
  team: z.string(),
  day: z.iso.date(),
  /** Time its jobs held a worker, loading included; of one that n jobs share, each is charged the nth part. */
  gpu_seconds: z.number().min(0),
  /** Part of it whose work is lost: of attempts that did not succeed, what came after their last checkpoint. */
  wasted_gpu_seconds: z.number().min(0),
  /** Attempts that ran on this day. */
  attempts: z.int().min(1),
});
export type UsageDay = z.infer<typeof usageDaySchema>;

/** By day, then team; days without use are left out. */
export const usageReportSchema = z.object({ object: z.literal('list'), data: z.array(usageDaySchema), has_more: z.literal(false), from: z.iso.date(), to: z.iso.date() });
export type UsageReport = z.infer<typeof usageReportSchema>;

import type { QueuedJob } from './snapshot';

/**
 * A priority is a number from -100 to 100. Its class decides between teams: nothing of a lower class goes before a higher one. Within a class
 * the number orders the jobs of one team only, so that no team gains on another by asking for more.
 */
export const priorityClasses = ['low', 'normal', 'high'] as const;

/** Index into `priorityClasses`. */
export type PriorityClass = 0 | 1 | 2;

const NORMAL_FROM = 0;
const HIGH_FROM = 50;

/** A waiting job gains one point in this time: one of priority 0 reaches the class `high` after twelve and a half hours, so nothing starves. */
export const AGEING_MS_PER_POINT = 15 * 60_000;

export function classOf(priority: number): PriorityClass {
  if (priority >= HIGH_FROM) return 2;
  return priority >= NORMAL_FROM ? 1 : 0;
}

export function agedPriority(job: Pick<QueuedJob, 'priority' | 'queuedAtMs'>, nowMs: number): number {
  return job.priority + Math.max(0, nowMs - job.queuedAtMs) / AGEING_MS_PER_POINT;
}

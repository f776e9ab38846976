import { z } from 'zod';

/**
 * Who acts on a failed attempt. `user`: the job fails at once. `resource`: once more with less memory.
 * `infrastructure`: again from the last checkpoint, within a budget. `platform`: our fault, never held against the job.
 */
export const failureClassSchema = z.enum(['user', 'resource', 'infrastructure', 'platform']);
export type FailureClass = z.infer<typeof failureClassSchema>;

export const failureSchema = z.object({
  class: failureClassSchema,
  code: z.string().max(100),
  message: z.string().max(4000),
  param: z.string().max(100).nullable().default(null),
  logTail: z.array(z.string().max(2000)).max(50).default([]),
});
export type Failure = z.infer<typeof failureSchema>;

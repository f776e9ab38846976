import { z } from 'zod';
import { fineTuningJobStatusSchema } from '../openai/fine-tuning';

/** `GET /api/v1/status`: what the service is doing, for people and dashboards. */
export const statusSchema = z.object({
  object: z.literal('status'),
  version: z.string(),
  /** Seconds since this replica started. */
  uptime_seconds: z.number().min(0),
  queue: z.object({
    backend: z.enum(['redis', 'postgres']),
    /** Age of the oldest message not yet handed to the queue. */
    outbox_lag_ms: z.number().min(0),
  }),
  /** Jobs by status; a status without jobs is left out. */
  jobs: z.partialRecord(fineTuningJobStatusSchema, z.int().min(0)),
  workers: z.object({ online: z.int().min(0), suspect: z.int().min(0), offline: z.int().min(0), cordoned: z.int().min(0) }),
  /** Control loops of this replica. */
  loops: z.array(
    z.object({
      name: z.string(),
      runs: z.int().min(0),
      errors: z.int().min(0),
      consecutive_errors: z.int().min(0),
      last_duration_ms: z.number().min(0),
    }),
  ),
  /** What the reconciler had to mend since this replica started, by kind; a steady rate points at a bug. */
  repairs: z.record(z.string(), z.int().min(0)),
});
export type StatusView = z.infer<typeof statusSchema>;

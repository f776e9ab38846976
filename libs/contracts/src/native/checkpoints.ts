import { z } from 'zod';
import { artifactRefSchema } from '../jobs/artifact';
import { afterSchema, boundedListSchema, limitSchema, unixSecondsSchema } from '../openai/common';

/**
 * `GET /api/v1/jobs/:id/checkpoints`, newest first: resumable state of a job. A file's bytes are at
 * `GET /api/v1/checkpoints/:id/files/:name`, as an adapter's are at `GET /api/v1/adapters/:id/files/:name`.
 */
export const checkpointSchema = z.object({
  id: z.string(),
  object: z.literal('checkpoint'),
  job_id: z.string(),
  attempt_id: z.string(),
  step: z.int().min(0),
  created_at: unixSecondsSchema,
  metrics: z.record(z.string(), z.number()),
  files: z.array(artifactRefSchema),
});
export type CheckpointView = z.infer<typeof checkpointSchema>;
export const checkpointListSchema = boundedListSchema(checkpointSchema);
export const listNativeCheckpointsQuerySchema = z.strictObject({ limit: limitSchema(100, 20), after: afterSchema });

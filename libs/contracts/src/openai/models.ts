import { z } from 'zod';
import { unixSecondsSchema } from './common';

export const apiModelSchema = z.object({
  id: z.string(),
  object: z.literal('model'),
  created: unixSecondsSchema,
  owned_by: z.string(),
  /** The base a tuned model stands on (extension, spelled as vLLM does); null for a base. */
  root: z.string(),
  parent: z.string().nullable(),
});
export type ApiModel = z.infer<typeof apiModelSchema>;

export const modelListSchema = z.object({ object: z.literal('list'), data: z.array(apiModelSchema) });
export const modelDeletedSchema = z.object({ id: z.string(), object: z.literal('model'), deleted: z.literal(true) });

import { z } from 'zod';
import { afterSchema, boundedListSchema, limitSchema, unixSecondsSchema } from './common';

/** What users may upload for. */
export const uploadPurposes = ['fine-tune', 'evals', 'user_data'] as const;
/** What stored files may be for: uploads, and what jobs produce. */
export const filePurposes = [...uploadPurposes, 'fine-tune-results', 'eval-results'] as const;

export const uploadPurposeSchema = z.enum(uploadPurposes);
export type UploadPurpose = z.infer<typeof uploadPurposeSchema>;

/** Form fields beside `file`, with the bracket notation already folded into objects. */
export const createFileFieldsSchema = z.strictObject({
  purpose: uploadPurposeSchema,
  expires_after: z
    .strictObject({
      anchor: z.literal('created_at'),
      seconds: z
        .union([z.string().regex(/^\d{1,9}$/, 'a whole number of seconds').transform(Number), z.int()])
        .pipe(z.int().min(3600).max(2_592_000)),
    })
    .optional(),
});
export type CreateFileFields = z.infer<typeof createFileFieldsSchema>;

export const listFilesQuerySchema = z.strictObject({
  purpose: z.enum(filePurposes).optional(),
  limit: limitSchema(10_000, 10_000),
  order: z.enum(['asc', 'desc']).default('desc'),
  after: afterSchema,
});

export const apiFileSchema = z.object({
  id: z.string(),
  object: z.literal('file'),
  bytes: z.int().min(0),
  created_at: unixSecondsSchema,
  filename: z.string(),
  purpose: z.string(),
  status: z.enum(['uploaded', 'processed', 'error']),
  status_details: z.string().optional(),
  expires_at: unixSecondsSchema.optional(),
  /** SHA-256 of the content, hexadecimal (extension). */
  sha256: z.string(),
});
export type ApiFile = z.infer<typeof apiFileSchema>;

export const fileListSchema = boundedListSchema(apiFileSchema);
export const fileDeletedSchema = z.object({ id: z.string(), object: z.literal('file'), deleted: z.literal(true) });

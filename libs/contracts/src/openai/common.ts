import { z } from 'zod';

/** Unix seconds. */
export const unixSecondsSchema = z.int().min(0);

/** Body of every answer outside 2xx; all four keys are always there, strict clients need them. */
export const apiErrorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});
export type ApiError = z.infer<typeof apiErrorSchema>;

/** User labels of a job: at most 16 pairs, keys of at most 64 and values of at most 512 characters. */
export const metadataSchema = z
  .record(z.string().min(1).max(64), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, { error: 'at most 16 pairs' });
export type Metadata = z.infer<typeof metadataSchema>;

/** A query parameter holding a whole number. Out of range is an error, not clamped: clamping hides bugs. */
export function limitSchema(maximum: number, byDefault: number) {
  return z
    .string()
    .regex(/^\d{1,9}$/, 'a whole number')
    .transform(Number)
    .pipe(z.int().min(1).max(maximum))
    .default(byDefault);
}

/** Id of the last object already seen. */
export const afterSchema = z.string().min(1).max(200).optional();

/** A page of objects. The SDK asks for the next page with `after` = id of the last item while `has_more`. */
export function listSchema<T extends z.ZodType>(item: T) {
  return z.object({ object: z.literal('list'), data: z.array(item), has_more: z.boolean() });
}

/** As `listSchema`, for the lists that also name their ends. */
export function boundedListSchema<T extends z.ZodType>(item: T) {
  return listSchema(item).extend({ first_id: z.string().nullable(), last_id: z.string().nullable() });
}

export interface ApiList<T> {
  readonly object: 'list';
  readonly data: readonly T[];
  readonly has_more: boolean;
}

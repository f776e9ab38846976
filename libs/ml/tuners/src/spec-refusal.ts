import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';

/** A refusal of one of a user's tuner fields. @param message what is wrong and what to do */
export function badField(field: string, message: string): TunefleetError {
  return new TunefleetError('invalid_input', `tuner.${field}: ${message}`, { reason: 'invalid_tuner', param: `tuner.${field}` });
}

/** The first thing wrong with a user's fields. @param known names of the fields there are   @param title of the tuner */
export function refusalOf(error: z.ZodError, known: readonly string[], title: string): TunefleetError {
  const [issue] = error.issues;
  const unknown = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  if (unknown !== undefined) return badField(unknown, `is not a field of ${title}; the fields are ${known.filter((name) => name !== 'kind').join(', ')}`);
  return badField(issue?.path[0]?.toString() ?? '', issue?.message ?? 'cannot be used');
}

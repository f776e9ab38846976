import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';

/** Parses a model's `config.json`. @throws TunefleetError `incompatible_artifact` naming the first bad field */
export function parseModelConfig<S extends z.ZodType>(schema: S, config: unknown): z.output<S> {
  const parsed = schema.safeParse(config);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue && issue.path.length > 0 ? `field ${issue.path.join('.')}: ` : '';
  throw new TunefleetError('incompatible_artifact', `the model's config.json cannot be used; ${where}${issue?.message ?? 'unreadable'}`, { reason: 'bad_model_config' });
}

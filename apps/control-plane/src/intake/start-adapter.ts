import { TunefleetError, canonicalJson } from '@tunefleet/foundation';
import { parseTunerSpec, specHalfOf, type TunerSpec } from '@tunefleet/ml-tuners/specs';

/**
 * The tuner with which a tuned model is trained on. Its weights fix the shape, so a request that leaves the tuner out, or at its defaults, goes on with
 * the adapter's own, and one that names another shape is refused.
 * @param asked the request's, all defaults filled in; null: it names none
 * @throws invalid_input with param `tuner.<field>`
 */
export function continuedTuner(asked: TunerSpec | null, { own, modelName }: { readonly own: TunerSpec; readonly modelName: string }): TunerSpec {
  if (asked === null || (asked.kind === own.kind && same(asked, parseTunerSpec({ kind: asked.kind })))) return own;
  const { freeFields } = specHalfOf(own);
  const [given, fixed]: readonly Readonly<Record<string, unknown>>[] = [asked, own];
  for (const field of new Set(['kind', ...Object.keys(asked), ...Object.keys(own)])) {
    if (freeFields.includes(field) || same(given?.[field], fixed?.[field])) continue;
    throw new TunefleetError('invalid_input', `tuner.${field} is ${JSON.stringify(given?.[field])}, but ${modelName} was tuned with ${JSON.stringify(fixed?.[field])}, which its weights fix: leave the tuner out to go on with it`, {
      reason: 'tuner_does_not_fit_adapter',
      param: `tuner.${field}`,
    });
  }
  return asked;
}

function same(a: unknown, b: unknown): boolean {
  return canonicalJson({ value: a }) === canonicalJson({ value: b });
}

import { TunefleetError, canonicalJson, type JsonObject } from '@tunefleet/foundation';

/** Training-time settings of a tuner: they leave the shape of its weights alone. */
const FREE_FIELDS: ReadonlySet<string> = new Set(['lora_dropout', 'init_lora_weights']);

/**
 * The tuner with which a tuned model is trained on. Its weights fix the shape, so a request that leaves the tuner at its defaults goes on with
 * the adapter's own, and one that names another shape is refused.
 * @param asked the request's, all defaults filled in
 * @throws invalid_input with param `tuner.<field>`
 */
export function continuedTuner<T extends JsonObject>(asked: T, { own, defaults, modelName }: { readonly own: T; readonly defaults: T; readonly modelName: string }): T {
  if (same(asked, defaults)) return own;
  for (const field of new Set([...Object.keys(asked), ...Object.keys(own)])) {
    if (FREE_FIELDS.has(field) || same(asked[field], own[field])) continue;
    throw new TunefleetError('invalid_input', `tuner.${field} is ${JSON.stringify(asked[field])}, but ${modelName} was tuned with ${JSON.stringify(own[field])}, which its weights fix: leave the tuner out to go on with it`, {
      reason: 'tuner_does_not_fit_adapter',
      param: `tuner.${field}`,
    });
  }
  return asked;
}

function same(a: unknown, b: unknown): boolean {
  return canonicalJson({ value: a }) === canonicalJson({ value: b });
}

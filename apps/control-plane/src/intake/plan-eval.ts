import type { EvalRequest, EvalSpec } from '@tunefleet/contracts';
import { problemAt, referenceOf, type DatasetProblem, type DatasetRow } from '@tunefleet/domain-datasets';
import { TunefleetError } from '@tunefleet/foundation';
import type { NamedModel } from './base-model';

/** Models of an eval in the order of its result: those compared to first, the judged one last. All stand on one base. */
export interface EvalLineUp {
  readonly baseId: string;
  /** Of the adapters; undefined: any. */
  readonly revision: string | undefined;
  readonly models: readonly NamedModel[];
}

/** @param compareTo in the request's order @throws invalid_input naming the model that does not fit the others */
export function lineUp(judged: NamedModel, compareTo: readonly NamedModel[]): EvalLineUp {
  const models = [...compareTo, judged];
  const seen = new Set<string>();
  let revision = judged.adapter?.baseRevision;
  for (const { name, baseId, adapter } of models) {
    if (seen.has(name)) throw new TunefleetError('invalid_input', `${name} is named twice: name each model once`, { reason: 'duplicate_model', param: 'compare_to' });
    seen.add(name);
    if (baseId !== judged.baseId) {
      throw new TunefleetError('invalid_input', `${name} stands on ${baseId}, but ${judged.name} on ${judged.baseId}: compare models on one base, or start an eval for each`, { reason: 'different_bases', param: 'compare_to' });
    }
    if (adapter === null) continue;
    revision ??= adapter.baseRevision;
    if (adapter.baseRevision !== revision) {
      throw new TunefleetError('invalid_input', `${name} was tuned on revision ${adapter.baseRevision} of ${baseId}, another one on ${revision}: start an eval for each`, { reason: 'different_bases', param: 'compare_to' });
    }
  }
  return { baseId: judged.baseId, revision, models };
}

export function candidatesOf({ models }: EvalLineUp): EvalSpec['candidates'] {
  return models.map(({ name, adapter }) => ({ model: name, ...(adapter === null ? {} : { adapter: [...adapter.artifacts] }) }));
}

/**
 * A row that no answer could get right: its reference is none of the labels.
 * @param limit rows that will be looked at @param position of the row among the good ones, from 1
 */
export function labelProblem(request: EvalRequest, row: DatasetRow, { line, position }: { readonly line: number; readonly position: number }): DatasetProblem | null {
  const { metric, limit } = request;
  if (metric.type !== 'label_likelihood' || (limit !== null && position > limit)) return null;
  const reference = referenceOf(row).trim();
  if (metric.labels.some((label) => label.trim() === reference)) return null;
  const shown = JSON.stringify(reference.length > 60 ? `${reference.slice(0, 60)}…` : reference);
  return problemAt(line, 'reference_not_in_labels', `the right answer ${shown} is none of the labels ${metric.labels.slice(0, 8).join(', ')}${metric.labels.length > 8 ? ', …' : ''}; add it to the labels, or mend the row`);
}

import type { BaseModelRef, EvalMetric } from '@tunefleet/contracts';
import { specHalfOf, type TunerSpec } from '@tunefleet/ml-tuners/specs';

// Jobs of one shape take about as much memory relative to their estimate, and as long for a step; what one is measured to take counts for
// the next. Lengths count in powers of two.

export function fineTuneShape({ base, tuner, tokens, batchSize, pairs = false }: { readonly base: BaseModelRef; readonly tuner: TunerSpec; readonly tokens: number; readonly batchSize: number; readonly pairs?: boolean }): string {
  return ['fine-tune', modelKey(base), specHalfOf(tuner).shapeKey(tuner), lengthClass(tokens), `batch-${batchSize}`, ...(pairs ? ['pairs'] : [])].join('|');
}

export function evalShape({ base, tokens, metric }: { readonly base: BaseModelRef; readonly tokens: number; readonly metric: EvalMetric['type'] }): string {
  return ['eval', modelKey(base), metric, lengthClass(tokens)].join('|');
}

function modelKey({ id, revision }: BaseModelRef): string {
  return `${id}@${revision}`;
}

function lengthClass(tokens: number): string {
  return `length-${2 ** Math.ceil(Math.log2(Math.max(1, tokens)))}`;
}

import type { EvalMetric } from '@tunefleet/contracts';
import { assertNever } from '@tunefleet/foundation';
import { ExactMatchJudge } from './exact-match-judge';
import type { Judge, JudgeOptions } from './judge';
import { LabelJudge } from './label-judge';

export function createJudge(metric: EvalMetric, options: JudgeOptions): Judge {
  switch (metric.type) {
    case 'label_likelihood':
      return new LabelJudge(metric, options);
    case 'exact_match':
      return new ExactMatchJudge(metric, options);
    default:
      return assertNever(metric, 'metric');
  }
}

import type { ParameterInfo } from '@tunefleet/ml-tuners';
import type { AdamWGroup } from './adamw';

/**
 * Parts of the flat vector that are updated alike; neighbours of the same treatment are one.
 * @param learningRate the run's peak rate, which rates of a parameter's own are turned into factors of
 */
export function optimiserGroups(parameters: readonly ParameterInfo[], learningRate: number): AdamWGroup[] {
  const groups: AdamWGroup[] = [];
  let at = 0;
  for (const { shape, optimiser = {} } of parameters) {
    const end = at + shape.reduce((product, size) => product * size, 1);
    const rateFactor = optimiser.learningRate === undefined ? (optimiser.rateFactor ?? 1) : learningRate > 0 ? optimiser.learningRate / learningRate : 0;
    const decays = optimiser.weightDecay !== false;
    const last = groups.at(-1);
    if (last && last.rateFactor === rateFactor && last.decays === decays) groups[groups.length - 1] = { ...last, end };
    else groups.push({ begin: at, end, rateFactor, decays });
    at = end;
  }
  return groups;
}

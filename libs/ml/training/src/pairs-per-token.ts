import type { CausalLm } from '@tunefleet/ml-models';

/**
 * Query-key pairs that cost as much as a token: a token takes 4 operations per weight of its block, forward and back; a pair 14 per channel, which run slower for
 * their softmax and copies (1,380 pairs measured for SmolLM2-135M on two cores).
 */
export function pairsPerTokenOf({ projections, layers, hiddenSize }: CausalLm): number {
  const weights = projections.reduce((sum, { inSize, outSize }) => sum + inSize * outSize, 0);
  return (4 * weights) / layers / (18 * hiddenSize);
}

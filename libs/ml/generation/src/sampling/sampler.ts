import { TunefleetError, uniformAt } from '@tunefleet/foundation';
import { z } from 'zod';

/** How the next token is chosen. `temperature: 0` is greedy; then the other fields do nothing. */
export const samplingSchema = z.object({
  temperature: z.number().min(0).max(2).default(0),
  /** Smallest set of likeliest tokens whose probability reaches this. 1: all. */
  topP: z.number().gt(0).max(1).default(1),
  /** Likeliest tokens kept. 0: all. */
  topK: z.int().min(0).max(1 << 24).default(0),
  seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
});
export type Sampling = z.infer<typeof samplingSchema>;

export const GREEDY: Sampling = { temperature: 0, topP: 1, topK: 0, seed: 0 };

/**
 * Chooses one token: temperature, then top-k, then top-p on what is left (the order of Hugging Face's `generate`).
 * Pure: the draw is fixed by (seed, row, position).
 * @param logits [V] float32, borrowed
 * @throws TunefleetError `numerical` when no logit is finite
 */
export function sampleToken(logits: Float32Array, sampling: Sampling, row: number, position: number): number {
  const best = argMax(logits);
  if (sampling.temperature === 0) return best;
  // Sorting a whole vocabulary costs more than the draw, so it is left out where order does not matter.
  const candidates = sampling.topK > 0 || sampling.topP < 1 ? likeliest(logits, sampling.topK) : everyToken(logits);
  const values = Float32Array.from(candidates, (token) => logits[token] as number);
  return candidates[drawAmong(values, sampling, row, position)] as number;
}

/**
 * Draws one of the candidates that top-k has left.
 * @param logits of the candidates, largest first where `topP` is below 1
 * @returns its index
 */
export function drawAmong(logits: Float32Array, sampling: Sampling, row: number, position: number): number {
  const largest = logits[argMax(logits)] as number;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - largest) / sampling.temperature));
  const kept = sampling.topP < 1 ? nucleus(weights, sampling.topP) : weights.length;
  let total = 0;
  for (let i = 0; i < kept; i++) total += weights[i] ?? 0;
  let rest = uniformAt(sampling.seed, row, position) * total;
  for (let i = 0; i < kept; i++) {
    rest -= weights[i] ?? 0;
    if (rest < 0) return i;
  }
  // Rounding can leave a sliver above the last weight.
  return kept - 1;
}

/** Index of the largest value, the lowest on ties. @throws TunefleetError `numerical` when there is none */
export function argMax(logits: Float32Array): number {
  let best = -1;
  let bestValue = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i] as number;
    if (value > bestValue) {
      best = i;
      bestValue = value;
    }
  }
  checkFinite(bestValue);
  return best;
}

/** @param largest logit of a row   @throws TunefleetError `numerical` */
export function checkFinite(largest: number): void {
  if (Number.isFinite(largest)) return;
  throw new TunefleetError('numerical', 'the model gave no finite score for any next token; its weights or the adapter hold non-finite numbers');
}

/** Token ids sorted by logit, largest first, lower id first on ties; at most `topK` unless it is 0. */
function likeliest(logits: Float32Array, topK: number): Int32Array {
  const order = everyToken(logits);
  order.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
  return topK > 0 ? order.subarray(0, topK) : order;
}

function everyToken(logits: Float32Array): Int32Array {
  return Int32Array.from(logits, (_, index) => index);
}

/** How many leading candidates are needed to reach probability `topP`; at least one. */
function nucleus(weights: Float64Array, topP: number): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  for (const [i, weight] of weights.entries()) {
    reached += weight;
    if (reached >= topP * total) return i + 1;
  }
  return weights.length;
}

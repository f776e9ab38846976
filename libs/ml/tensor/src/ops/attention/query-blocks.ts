import { eachRange, type AttentionMask, type KeyRange } from './masks';

/** Queries that are scored together, at least; fewer would cost more in calls than they save in scores. */
export const QUERY_BLOCK = 128;
/** Keys are left out by this many. */
const KEY_BLOCK = 32;
/** A gap between seen keys that is not worth a copy of its own. */
const GAP_MIN = 64;

/** Keys a query, on average, up to which the probabilities are kept for the backward pass: H * S per token, against some 3 C + 2 F of a block's other activations. */
const PROBABILITIES_KEPT_MAX = 256;

/** Queries `from` to `to`, and the keys that any of them sees, in any row of the batch. */
export interface QueryBlock {
  readonly from: number;
  readonly to: number;
  readonly keys: readonly KeyRange[];
}

/**
 * Cuts attention into blocks of queries that leave out keys which nobody in them sees: under a causal mask the later ones, in packed rows other examples. The idea, and
 * the word, of a block mask are those of FlexAttention (Dong et al. 2024, arXiv:2412.05496).
 */
export function queryBlocks(mask: AttentionMask): readonly QueryBlock[] {
  const { rows, queries, keys } = mask;
  return spansOf(queries).map(([from, to]) => {
    const seen = new Uint8Array(Math.ceil(keys / KEY_BLOCK));
    for (let row = 0; row < rows; row++) {
      for (let query = from; query < to; query++) eachRange(mask, row, query, (start, end) => seen.fill(1, Math.floor(start / KEY_BLOCK), Math.ceil(end / KEY_BLOCK)));
    }
    return { from, to, keys: rangesOf(keys, seen) };
  });
}

/** The blocks of a causal mask, without making one. */
export function causalBlocks(queries: number, keys: number): readonly QueryBlock[] {
  return spansOf(queries).map(([from, to]) => ({ from, to, keys: [[0, Math.min(keys, Math.ceil((keys - queries + to) / KEY_BLOCK) * KEY_BLOCK)]] }));
}

function spansOf(queries: number): readonly (readonly [from: number, to: number])[] {
  const count = Math.max(1, Math.floor(queries / QUERY_BLOCK));
  const edge = (index: number): number => Math.round((index * queries) / count);
  return Array.from({ length: count }, (_, index) => [edge(index), edge(index + 1)]);
}

/** Whether the probabilities of these blocks are kept for the backward pass. */
export function keepsProbabilities(blocks: readonly QueryBlock[], queries: number): boolean {
  return scoredPairs(blocks) <= PROBABILITIES_KEPT_MAX * queries;
}

/** Elements of the scores that are computed, per head and row of a batch. */
export function scoredPairs(blocks: readonly QueryBlock[]): number {
  return blocks.reduce((sum, { from, to, keys }) => sum + (to - from) * keysIn(keys), 0);
}

export function keysIn(ranges: readonly KeyRange[]): number {
  return ranges.reduce((sum, [start, end]) => sum + end - start, 0);
}

/** @param seen one per KEY_BLOCK keys */
function rangesOf(keys: number, seen: Uint8Array): KeyRange[] {
  const ranges: [number, number][] = [];
  for (let start = 0; start < keys; start += KEY_BLOCK) {
    const end = Math.min(keys, start + KEY_BLOCK);
    if (!seen[start / KEY_BLOCK]) continue;
    const last = ranges.at(-1);
    if (last && start - last[1] < GAP_MIN) last[1] = end;
    else ranges.push([start, end]);
  }
  // Of a query that sees nothing the softmax is over masked scores alone; it needs one.
  return ranges.length > 0 ? ranges : [[0, Math.min(keys, KEY_BLOCK)]];
}

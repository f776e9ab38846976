import type { PackedTokens } from './token-pool';

export interface TokenStatistics {
  readonly examples: number;
  readonly tokens: number;
  /** Tokens that carry loss. */
  readonly lossTokens: number;
  readonly shortest: number;
  readonly longest: number;
  readonly truncated: number;
  /** Examples by length: `count` have at most `upTo` tokens and more than the entry before. Powers of two. */
  readonly histogram: readonly { readonly upTo: number; readonly count: number }[];
}

export function tokenStatistics({ lengths, ids, learned }: PackedTokens, truncated: number): TokenStatistics {
  let lossTokens = 0;
  for (const flag of learned) lossTokens += flag;
  const counts = new Map<number, number>();
  let shortest = Infinity;
  let longest = 0;
  for (const length of lengths) {
    shortest = Math.min(shortest, length);
    longest = Math.max(longest, length);
    const upTo = 2 ** Math.max(4, Math.ceil(Math.log2(length)));
    counts.set(upTo, (counts.get(upTo) ?? 0) + 1);
  }
  const histogram = [...counts].sort(([a], [b]) => a - b).map(([upTo, count]) => ({ upTo, count }));
  return { examples: lengths.length, tokens: ids.length, lossTokens, shortest: lengths.length === 0 ? 0 : shortest, longest, truncated, histogram };
}

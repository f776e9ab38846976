/** Added to a score that must not count; finite, so that no row can become NaN. */
export const MASKED = -1e9;

/** Keys `start` to `end`. */
export type KeyRange = readonly [start: number, end: number];

/** What every query sees, on the host. */
export interface AttentionMask {
  /** [rows, queries, ranges, 2]: start and end of keys that a query sees, ascending and apart; who has fewer ranges than others has empty ones behind them. */
  readonly ranges: Int32Array;
  /** 1: the same for every row of a batch. */
  readonly rows: number;
  /** 1: the same for every query. */
  readonly queries: number;
  readonly keys: number;
}

/** Query i, at absolute position `offset + i`, sees the last `window` of the keys 0 .. offset + i. */
export function causalMask(queries: number, keys: number, offset = 0, window = Infinity): AttentionMask {
  return maskOf({ rows: 1, queries, keys }, (_, i, see) => {
    const end = Math.min(keys, offset + i + 1);
    see(end - window, end);
  });
}

/**
 * For packed examples: causal, and only within equal segment numbers of a row. A segment's tokens follow each other; each of them stands behind the `offset` earlier
 * keys, as if it were alone with them.
 */
export function segmentMask(segments: Int32Array, options: { readonly rows: number; readonly columns: number; readonly offset?: number; readonly window?: number }): AttentionMask {
  const { rows, columns, offset = 0, window = Infinity } = options;
  let start = 0;
  return maskOf({ rows, queries: columns, keys: offset + columns }, (row, i, see) => {
    const at = row * columns + i;
    if (i === 0 || segments[at] !== segments[at - 1]) start = i;
    see(offset + i - start + 1 - window, offset);
    see(offset + Math.max(start, i + 1 - window), offset + i + 1);
  });
}

/** The first `lengths[b]` tokens of a row are seen by all, padding by none. */
export function paddingMask(lengths: Int32Array, columns: number): AttentionMask {
  return maskOf({ rows: lengths.length, queries: 1, keys: columns }, (row, _, see) => see(0, lengths[row] ?? 0));
}

/**
 * For continuations that share their beginning: a token sees the `offset` earlier keys, and of the T new tokens those before it that belong to its own branch or to
 * the trunk (branch 0). With a window, only those whose position is less than that far behind its own; the earlier keys' positions count from 0.
 */
export function branchMask(
  branches: Int32Array,
  options: { readonly rows: number; readonly columns: number; readonly offset: number; readonly window?: { readonly size: number; readonly positions: Int32Array } },
): AttentionMask {
  const { rows, columns, offset, window } = options;
  return maskOf({ rows, queries: columns, keys: offset + columns }, (row, i, see) => {
    const line = row * columns;
    const own = branches[line + i];
    const first = window ? (window.positions[line + i] ?? 0) - window.size + 1 : -Infinity;
    see(first, offset);
    for (let j = 0; j <= i; j++) {
      const other = branches[line + j];
      if ((other === 0 || other === own) && (!window || (window.positions[line + j] ?? 0) >= first)) see(offset + j, offset + j + 1);
    }
  });
}

/** Calls `body` for the ranges of a query; its start and end may be any numbers of a mask of one row or query. */
export function eachRange({ ranges, rows, queries }: AttentionMask, row: number, query: number, body: (start: number, end: number) => void): void {
  const size = ranges.length / (rows * queries);
  const from = (row * queries + query) * size;
  for (let at = from; at < from + size; at += 2) {
    const [start = 0, end = 0] = [ranges[at], ranges[at + 1]];
    if (start < end) body(start, end);
  }
}

/** @param ranges tells `see`, query by query, what it sees, from the first key on; keys below 0 there are none, and empty ranges are left out */
function maskOf(sizes: Omit<AttentionMask, 'ranges'>, ranges: (row: number, query: number, see: (start: number, end: number) => void) => void): AttentionMask {
  const { rows, queries } = sizes;
  const seen: number[][] = [];
  for (let row = 0; row < rows; row++) {
    for (let query = 0; query < queries; query++) {
      const own: number[] = [];
      ranges(row, query, (start, end) => {
        const from = Math.max(0, start);
        if (from >= end) return;
        if (own.at(-1) === from) own[own.length - 1] = end;
        else own.push(from, end);
      });
      seen.push(own);
    }
  }
  const size = seen.reduce((most, { length }) => Math.max(most, length), 2);
  const table = new Int32Array(seen.length * size);
  seen.forEach((own, index) => table.set(own, index * size));
  return { ...sizes, ranges: table };
}

/** Added to a score that must not count; finite, so that no row can become NaN. */
export const MASKED = -1e9;

/** What every query sees, on the host: 0 where it sees a key, else a number that no score outweighs. */
export interface AttentionMask {
  /** [rows, queries, keys] */
  readonly values: Float32Array;
  /** 1: the same for every row of a batch. */
  readonly rows: number;
  /** 1: the same for every query. */
  readonly queries: number;
  readonly keys: number;
}

/** Query i, at absolute position `offset + i`, sees the last `window` of the keys 0 .. offset + i. */
export function causalMask(queries: number, keys: number, offset = 0, window = Infinity): AttentionMask {
  const values = new Float32Array(queries * keys);
  for (let i = 0; i < queries; i++) {
    const end = Math.min(keys, offset + i + 1);
    values.fill(MASKED, i * keys, i * keys + Math.max(0, end - window));
    values.fill(MASKED, i * keys + end, (i + 1) * keys);
  }
  return { values, rows: 1, queries, keys };
}

/**
 * For packed examples: causal, and only within equal segment numbers of a row. A segment's tokens follow each other; each of them stands behind the `offset` earlier
 * keys, as if it were alone with them.
 */
export function segmentMask(segments: Int32Array, options: { readonly rows: number; readonly columns: number; readonly offset?: number; readonly window?: number }): AttentionMask {
  const { rows, columns, offset = 0, window = Infinity } = options;
  const keys = offset + columns;
  const values = new Float32Array(rows * columns * keys).fill(MASKED);
  for (let row = 0; row < rows; row++) {
    let start = 0;
    for (let i = 0; i < columns; i++) {
      if (i > 0 && segments[row * columns + i] !== segments[row * columns + i - 1]) start = i;
      const at = (row * columns + i) * keys;
      values.fill(0, at + Math.max(0, offset + i - start + 1 - window), at + offset);
      values.fill(0, at + offset + Math.max(start, i + 1 - window), at + offset + i + 1);
    }
  }
  return { values, rows, queries: columns, keys };
}

/** The first `lengths[b]` tokens of a row are seen by all, padding by none. */
export function paddingMask(lengths: Int32Array, columns: number): AttentionMask {
  const values = new Float32Array(lengths.length * columns);
  lengths.forEach((length, row) => values.fill(MASKED, row * columns + length, (row + 1) * columns));
  return { values, rows: lengths.length, queries: 1, keys: columns };
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
  const keys = offset + columns;
  const values = new Float32Array(rows * columns * keys);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const at = (row * columns + i) * keys + offset;
      const own = branches[row * columns + i];
      for (let j = 0; j < columns; j++) {
        const other = branches[row * columns + j];
        if (j > i || (other !== 0 && other !== own)) values[at + j] = MASKED;
      }
      if (!window) continue;
      const first = (window.positions[row * columns + i] ?? 0) - window.size + 1;
      values.fill(MASKED, at - offset, at - offset + Math.max(0, Math.min(offset, first)));
      for (let j = 0; j < columns; j++) if ((window.positions[row * columns + j] ?? 0) < first) values[at + j] = MASKED;
    }
  }
  return { values, rows, queries: columns, keys };
}

/** What a bench returns; see `tools/bench.mjs`. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  /** What the peer did in the same run, and ours relative to it. */
  readonly peer?: number;
  readonly ratio?: number;
}

/** A row beside its peer, where there is one. */
export function rowBeside(name: string, unit: string, value: number, peer: number | undefined): Row {
  return peer === undefined ? { name, unit, value } : { name, unit, value, peer, ratio: value / peer };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? NaN) : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

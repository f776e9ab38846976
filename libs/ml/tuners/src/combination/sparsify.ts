import { philox4x32 } from '@tunefleet/foundation';

/** Keeps the share `density` of the values that are largest in size. @returns a new array */
export function pruneSmallest(values: Float32Array, density: number): Float32Array {
  if (density >= 1) return values.slice();
  const kept = Math.floor(density * values.length);
  const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b] as number) - Math.abs(values[a] as number) || a - b);
  const result = new Float32Array(values.length);
  for (const index of order.slice(0, kept)) result[index] = values[index] as number;
  return result;
}

/** Keeps every value with probability `density`, divided by it, so that the sum is expected to stay. Equal keys, equal choice. */
export function dropAndRescale(values: Float32Array, density: number, key: readonly [seed: number, stream: number]): Float32Array {
  if (density >= 1) return values.slice();
  return values.map((value, index) => {
    const [word] = philox4x32([index, key[1] >>> 0, 0, 0], [key[0] >>> 0, Math.floor(key[0] / 2 ** 32) >>> 0]);
    return (word >>> 0) / 2 ** 32 < density ? value / density : 0;
  });
}

/** Sum of weighted values. All of one length. */
export function weightedSum(values: readonly Float32Array[], weights: readonly number[]): Float32Array {
  return Float32Array.from(values[0] ?? [], (_, index) => values.reduce((sum, each, i) => sum + (weights[i] as number) * (each[index] as number), 0));
}

/** TIES: per element the mean of the weighted values whose own sign is that of the sum. @see Yadav et al. 2023, arXiv:2306.01708 */
export function meanOfMajority(values: readonly Float32Array[], weights: readonly number[]): Float32Array {
  return Float32Array.from(values[0] ?? [], (_, index) => {
    const column = values.map((each) => each[index] as number);
    const majority = column.reduce((sum, value) => sum + value, 0) >= 0 ? 1 : -1;
    let sum = 0;
    let agreeing = 0;
    column.forEach((value, i) => {
      if (Math.sign(value) !== majority) return;
      sum += (weights[i] as number) * value;
      agreeing++;
    });
    return sum / Math.max(1, agreeing);
  });
}

import { TunefleetError } from '@tunefleet/foundation';

/** 97.5 % point of the standard normal distribution: two-sided 95 %. */
const Z_95 = 1.959963984540054;

/**
 * Wilson score interval of a proportion, 95 %. Stays inside [0, 1] and is sensible at 0 and n correct, where the usual normal interval is not.
 * @returns [low, high]; [0, 1] when `n` is 0, since nothing is known then
 * @see Wilson 1927, "Probable inference, the law of succession, and statistical inference"
 */
export function wilsonInterval(correct: number, n: number): [number, number] {
  if (!Number.isInteger(correct) || !Number.isInteger(n) || correct < 0 || correct > n) {
    throw new TunefleetError('invariant', `a Wilson interval needs 0 <= correct <= n, got ${correct} of ${n}`);
  }
  if (n === 0) return [0, 1];
  const share = correct / n;
  const z2 = Z_95 * Z_95;
  const centre = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Z_95 / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  // The bounds are exact at the ends; rounding must not push them off.
  return [correct === 0 ? 0 : Math.max(0, centre - half), correct === n ? 1 : Math.min(1, centre + half)];
}

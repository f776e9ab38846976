import { TunefleetError } from '@tunefleet/foundation';

/**
 * McNemar's exact test for paired yes/no outcomes: the two-sided p-value under "each disagreement falls to either side with probability 1/2",
 * that is twice the smaller binomial tail, at most 1.
 * @param onlyFirst rows only the first got right    @param onlyLast rows only the last got right
 * @see McNemar 1947, Psychometrika 12; the exact form is the sign test on the disagreements
 */
export function mcnemarExact(onlyFirst: number, onlyLast: number): number {
  if (!Number.isInteger(onlyFirst) || !Number.isInteger(onlyLast) || onlyFirst < 0 || onlyLast < 0) {
    throw new TunefleetError('invariant', `McNemar's test needs two counts, got ${onlyFirst} and ${onlyLast}`);
  }
  const n = onlyFirst + onlyLast;
  const smaller = Math.min(onlyFirst, onlyLast);
  // In logarithms: 0.5^n underflows beyond n = 1074.
  let logTerm = -n * Math.LN2;
  let tail = Math.exp(logTerm);
  for (let i = 1; i <= smaller; i++) {
    logTerm += Math.log((n - i + 1) / i);
    tail += Math.exp(logTerm);
  }
  return Math.min(1, 2 * tail);
}

import { mcnemarExact } from './mcnemar';
import { wilsonInterval } from './wilson';

// Reference values worked out independently: the formula in 30 decimal digits, the binomial tails in exact fractions.
test.each([
  [285, 300, 0.919153, 0.969468],
  [150, 300, 0.44378, 0.55622],
  [1, 10, 0.017876, 0.40415],
])('Wilson interval of %i of %i', (correct, n, low, high) => {
  const interval = wilsonInterval(correct, n);
  expect(interval[0]).toBeCloseTo(low, 5);
  expect(interval[1]).toBeCloseTo(high, 5);
});

test('Wilson interval at the ends stays inside [0, 1] and does not collapse', () => {
  expect(wilsonInterval(0, 10)[0]).toBe(0);
  expect(wilsonInterval(0, 10)[1]).toBeCloseTo(0.2775, 4);
  expect(wilsonInterval(10, 10)[0]).toBeCloseTo(0.7225, 4);
  expect(wilsonInterval(10, 10)[1]).toBe(1);
  expect(wilsonInterval(0, 0)).toEqual([0, 1]);
  expect(() => wilsonInterval(3, 2)).toThrow('0 <= correct <= n, got 3 of 2');
});

test.each([
  [0, 0, 1],
  [1, 0, 1],
  [0, 5, 0.0625],
  [2, 8, 0.109375],
  [5, 5, 1],
])('McNemar of %i against %i disagreements', (first, last, p) => {
  expect(mcnemarExact(first, last)).toBeCloseTo(p, 10);
  expect(mcnemarExact(last, first)).toBe(mcnemarExact(first, last));
});

test('McNemar does not underflow with thousands of disagreements', () => {
  expect(mcnemarExact(2000, 2000)).toBe(1);
  expect(mcnemarExact(1900, 2100)).toBeCloseTo(0.0016492663751357, 10);
  expect(mcnemarExact(0, 4000)).toBe(0);
});

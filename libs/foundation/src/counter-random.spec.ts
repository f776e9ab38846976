import { fillNormal, fillUniform, philox4x32, uniformAt } from './counter-random';

// Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
test.each([
  [[0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
  [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
  [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]],
] as const)('Philox 4x32-10 known answer %#', (counter, key, expected) => {
  expect(philox4x32(counter, key)).toEqual(expected);
});

test('uniform draws are in [0, 1), spread evenly, and differ by seed, stream and counter', () => {
  const draws = Array.from({ length: 10_000 }, (_, i) => uniformAt(1, 0, i));
  expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...draws)).toBeLessThan(1);
  expect(draws.reduce((sum, x) => sum + x, 0) / draws.length).toBeCloseTo(0.5, 2);
  expect(new Set([uniformAt(7, 0, 0), uniformAt(8, 0, 0), uniformAt(7, 1, 0), uniformAt(7, 0, 1)]).size).toBe(4);
});

test('filled arrays have the asked bounds and deviation, and are a function of seed and stream', () => {
  const uniform = new Float32Array(9_999);
  fillUniform(uniform, 0.25, 1, 0);
  expect(Math.min(...uniform)).toBeGreaterThanOrEqual(-0.25);
  expect(Math.max(...uniform)).toBeLessThanOrEqual(0.25);
  expect(rootMeanSquare(uniform)).toBeCloseTo(0.25 / Math.sqrt(3), 2);
  const normal = new Float32Array(9_999);
  fillNormal(normal, 2, 1, 0);
  expect(rootMeanSquare(normal)).toBeCloseTo(2, 1);
  expect(Math.max(...normal)).toBeGreaterThan(4);
  const again = new Float32Array(9_999);
  fillUniform(again, 0.25, 1, 0);
  expect(again).toEqual(uniform);
  fillUniform(again, 0.25, 1, 1);
  expect(again).not.toEqual(uniform);
});

function rootMeanSquare(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

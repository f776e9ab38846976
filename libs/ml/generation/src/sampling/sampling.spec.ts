import { GREEDY, sampleToken, samplingSchema } from './sampler';

const LOGITS = Float32Array.of(Math.log(0.1), Math.log(0.5), Math.log(0.05), Math.log(0.35));

function shares(sampling: Parameters<typeof samplingSchema.parse>[0]): number[] {
  const settings = samplingSchema.parse(sampling);
  const counts = [0, 0, 0, 0];
  const draws = 20_000;
  for (let i = 0; i < draws; i++) {
    const token = sampleToken(LOGITS, settings, 0, i);
    counts[token] = (counts[token] ?? 0) + 1;
  }
  return counts.map((count) => count / draws);
}

test('greedy takes the largest logit, the lowest id on ties', () => {
  expect(sampleToken(LOGITS, GREEDY, 0, 0)).toBe(1);
  expect(sampleToken(Float32Array.of(1, 3, 3), GREEDY, 0, 0)).toBe(1);
});

test('sampled shares follow the probabilities', () => {
  const [a, b, c, d] = shares({ temperature: 1, seed: 3 });
  expect(a).toBeCloseTo(0.1, 1);
  expect(b).toBeCloseTo(0.5, 1);
  expect(c).toBeCloseTo(0.05, 1);
  expect(d).toBeCloseTo(0.35, 1);
});

test('top-p keeps the smallest set that reaches it, top-k the likeliest', () => {
  expect(shares({ temperature: 1, topP: 0.8 }).map((share) => share > 0)).toEqual([false, true, false, true]);
  expect(shares({ temperature: 1, topP: 0.4 })).toEqual([0, 1, 0, 0]);
  expect(shares({ temperature: 1, topK: 3 }).map((share) => share > 0)).toEqual([true, true, false, true]);
  expect(shares({ temperature: 1, topK: 1 })).toEqual([0, 1, 0, 0]);
});

test('a draw depends on seed, row and position alone', () => {
  const settings = samplingSchema.parse({ temperature: 1, seed: 11 });
  const run = (): number[] => Array.from({ length: 200 }, (_, i) => sampleToken(LOGITS, settings, 2, i));
  expect(run()).toEqual(run());
  expect(run()).not.toEqual(Array.from({ length: 200 }, (_, i) => sampleToken(LOGITS, settings, 3, i)));
});

test('logits without a finite value are a numerical error', () => {
  expect(() => sampleToken(Float32Array.of(NaN, NaN), GREEDY, 0, 0)).toThrow('no finite score');
  expect(() => sampleToken(Float32Array.of(NaN, NaN), samplingSchema.parse({ temperature: 1 }), 0, 0)).toThrow('no finite score');
});

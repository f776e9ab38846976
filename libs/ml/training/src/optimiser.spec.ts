/** Schedules and AdamW against numbers of Transformers and torch (`tools/golden/optimiser_fixture.py`). */
import { readFileSync } from 'node:fs';
import { optimiserGroups } from './optimiser-groups';
import { adamWUpdate, clipFactor, gradientNorm, newAdamWState } from './adamw';
import { learningRateAt, warmupStepsOf, type ScheduleName } from './schedule';

interface Fixture {
  readonly learningRate: number;
  readonly schedules: readonly { name: ScheduleName; totalSteps: number; warmupSteps: number; rates: number[] }[];
  readonly adamw: readonly {
    learningRate: number;
    weightDecay: number;
    maxGradNorm: number;
    start: number[];
    steps: { gradient: number[]; norm: number; values: number[] }[];
  }[];
}

const fixture = JSON.parse(readFileSync(new URL('../fixtures/optimiser.json', import.meta.url), 'utf8')) as Fixture;

it.each(fixture.schedules)('$name over $totalSteps steps with $warmupSteps of warm-up gives the reference rates', ({ name, totalSteps, warmupSteps, rates }) => {
  const schedule = { name, learningRate: fixture.learningRate, totalSteps, warmupSteps };
  const ours = rates.map((_, step) => learningRateAt(schedule, step));
  ours.forEach((rate, step) => expect(Math.abs(rate - (rates[step] as number))).toBeLessThan(1e-12));
});

it('rounds warm-up steps up and allows none', () => {
  expect([warmupStepsOf(100, 0.03), warmupStepsOf(10, 0.03), warmupStepsOf(10, 0)]).toEqual([3, 1, 0]);
});

it.each(fixture.adamw)('AdamW with weight decay $weightDecay, clipped at $maxGradNorm, follows torch', ({ learningRate, weightDecay, maxGradNorm, start, steps }) => {
  const values = Float32Array.from(start);
  const state = newAdamWState(values.length);
  for (const step of steps) {
    const gradient = Float32Array.from(step.gradient);
    const norm = gradientNorm(gradient);
    expect(Math.abs(norm / step.norm - 1)).toBeLessThan(1e-6);
    adamWUpdate(values, gradient, state, { learningRate, weightDecay, gradientScale: clipFactor(norm, maxGradNorm) });
    values.forEach((value, i) => expect(Math.abs(value - (step.values[i] as number))).toBeLessThan(1e-6));
  }
});

it.each([NaN, Infinity, -Infinity])('the norm of a gradient with %p is not finite', (bad) => {
  expect(Number.isFinite(gradientNorm(Float32Array.of(1, bad, 2)))).toBe(false);
});

test('parts with rates and decay of their own are updated as if they were alone', () => {
  const parameters = [{ name: 'a', shape: [2, 2] }, { name: 'b', shape: [3], optimiser: { rateFactor: 16 } }, { name: 'c', shape: [3], optimiser: { rateFactor: 16 } }, { name: 'd', shape: [2], optimiser: { learningRate: 1e-6, weightDecay: false as const } }];
  const groups = optimiserGroups(parameters, 1e-3);
  expect(groups).toEqual([{ begin: 0, end: 4, rateFactor: 1, decays: true }, { begin: 4, end: 10, rateFactor: 16, decays: true }, { begin: 10, end: 12, rateFactor: 1e-6 / 1e-3, decays: false }]);
  const start = Float32Array.from({ length: 12 }, (_, i) => Math.sin(i + 1));
  const gradient = (step: number) => Float32Array.from({ length: 12 }, (_, i) => Math.cos(step * 3 + i));
  const whole = start.slice();
  const moments = newAdamWState(12);
  const alone = groups.map(({ begin, end }) => ({ values: start.slice(begin, end), moments: newAdamWState(end - begin) }));
  for (let step = 0; step < 5; step++) {
    adamWUpdate(whole, gradient(step), moments, { groups, learningRate: 1e-3, weightDecay: 0.1 });
    alone.forEach(({ values, moments: own }, index) => {
      const { begin, end, rateFactor, decays } = groups[index] as (typeof groups)[number];
      adamWUpdate(values, gradient(step).slice(begin, end), own, { learningRate: 1e-3 * rateFactor, weightDecay: decays ? 0.1 : 0 });
    });
  }
  expect([...whole]).toEqual(alone.flatMap(({ values }) => [...values]));
});

/** Schedules and AdamW against numbers of Transformers and torch (`tools/golden/optimiser_fixture.py`). */
import { readFileSync } from 'node:fs';
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

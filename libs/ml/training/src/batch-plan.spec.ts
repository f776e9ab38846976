import fc from 'fast-check';
import { planEpoch, planPass, stepsPerEpoch } from './batch-plan';

const options = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 200 }),
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  epoch: fc.integer({ min: 0, max: 5 }),
  batchSize: fc.integer({ min: 1, max: 17 }),
  microBatchSize: fc.integer({ min: 1, max: 8 }),
});

it('visits every example once, in full batches but the last, and depends on its arguments alone', () => {
  fc.assert(
    fc.property(options, (o) => {
      const plan = planEpoch(o);
      const batches = plan.map(({ microBatches }) => microBatches.flatMap((micro) => [...micro]));
      expect(batches.flat().sort((a, b) => a - b)).toEqual(o.lengths.map((_, index) => index));
      expect(batches.length).toBe(stepsPerEpoch(o.lengths.length, o.batchSize));
      for (const batch of batches.slice(0, -1)) expect(batch.length).toBe(o.batchSize);
      const room = o.microBatchSize * Math.max(...o.lengths);
      for (const { microBatches } of plan) {
        const held = microBatches.map((micro) => micro.reduce((sum, index) => sum + (o.lengths[index] as number), 0));
        for (const tokens of held) expect(tokens).toBeLessThanOrEqual(room);
        // One pass would not do.
        if (held.length === 2) expect((held[0] as number) + (held[1] as number)).toBeGreaterThan(room);
      }
      expect(planEpoch(o)).toEqual(plan);
    }),
    { seed: 7, numRuns: 60 },
  );
});

it('the micro-batch size changes only how batches are cut', () => {
  fc.assert(
    fc.property(options, (o) => {
      const flat = (microBatchSize: number) => planEpoch({ ...o, microBatchSize }).map(({ microBatches }) => microBatches.flatMap((micro) => [...micro]));
      expect(flat(1)).toEqual(flat(1000));
    }),
    { seed: 8, numRuns: 30 },
  );
});

it('passes are few and even, and short examples share the room of a long one', () => {
  const passesOf = (batch: number[], microBatchSize: number) =>
    planEpoch({ lengths: batch, seed: 1, epoch: 0, batchSize: batch.length, microBatchSize })[0]?.microBatches.map((micro) => Array.from(micro, (index) => batch[index] as number));
  expect(passesOf(Array.from({ length: 8 }, () => 50), 6)).toEqual([Array.from({ length: 4 }, () => 50), Array.from({ length: 4 }, () => 50)]);
  expect(passesOf([900, 100, 100, 100, 100, 100, 100, 100, 100, 100], 1)).toEqual([[900], Array.from({ length: 9 }, () => 100)]);
  expect(passesOf([100, 60, 60, 60, 60, 60], 2)).toEqual([[100, 60], [60, 60], [60, 60]]);
});

const lengths = Array.from({ length: 1000 }, (_, i) => 10 + ((i * 7919) % 491));

it('epochs and seeds differ', () => {
  const first = (seed: number, epoch: number) => planEpoch({ lengths, seed, epoch, batchSize: 8, microBatchSize: 8 })[0]?.microBatches[0];
  expect(first(1, 0)).not.toEqual(first(1, 1));
  expect(first(1, 0)).not.toEqual(first(2, 0));
});

it('grouping by length saves most of the padding', () => {
  const padded = planEpoch({ lengths, seed: 3, epoch: 0, batchSize: 8, microBatchSize: 8 })
    .flatMap(({ microBatches }) => microBatches)
    .reduce((sum, micro) => sum + micro.length * Math.max(...Array.from(micro, (index) => lengths[index] as number)), 0);
  const tokens = lengths.reduce((a, b) => a + b, 0);
  expect(padded / tokens).toBeLessThan(1.1);
});

it('no length is favoured early or left for the end', () => {
  const means = [0, 1, 2, 3].map((quarter) => {
    let sum = 0;
    let count = 0;
    for (let seed = 0; seed < 20; seed++) {
      const plan = planEpoch({ lengths, seed, epoch: 0, batchSize: 8, microBatchSize: 8 });
      for (const { microBatches } of plan.slice(Math.floor((quarter * plan.length) / 4), Math.floor(((quarter + 1) * plan.length) / 4))) {
        for (const micro of microBatches) for (const index of micro) [sum, count] = [sum + (lengths[index] as number), count + 1];
      }
    }
    return sum / count;
  });
  const mean = lengths.reduce((a, b) => a + b, 0) / lengths.length;
  for (const value of means) expect(Math.abs(value / mean - 1)).toBeLessThan(0.05);
});

it('a pass without training covers everything once, longest first', () => {
  const pass = planPass([3, 9, 1, 9, 5, 8], 2);
  expect(pass.map((micro) => [...micro])).toEqual([[1, 3], [5, 4, 0, 2]]);
});

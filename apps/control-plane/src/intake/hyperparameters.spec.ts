import fc from 'fast-check';
import { fineTuneSpecSchema } from '@tunefleet/contracts';
import { settleHyperparameters, stepsOf } from './hyperparameters';

const LEARNING_RATE_DEFAULT = 2e-4;
const settle = (given: Parameters<typeof settleHyperparameters>[0], examples: number) => settleHyperparameters(given, examples, LEARNING_RATE_DEFAULT);

test.each([
  // examples, epochs, batch size
  [1, 25, 1],
  [10, 10, 8],
  [33, 4, 8],
  [34, 3, 8],
  [400, 3, 8],
  [8_333, 3, 17],
  [10_000, 2, 20],
  [30_000, 1, 60],
  [1_000_000, 1, 64],
])('auto for %i examples: %i epochs, batches of %i', (examples, epochs, batchSize) => {
  expect(settle({ n_epochs: 'auto' }, examples)).toMatchObject({ n_epochs: epochs, batch_size: batchSize });
});

test('what is given stays', () => {
  expect(settle({ n_epochs: 2, batch_size: 64, learning_rate: 1e-3, schedule: 'linear', micro_batch_size: 4 }, 20)).toEqual({
    n_epochs: 2,
    batch_size: 64,
    learning_rate: 1e-3,
    learning_rate_multiplier: 5,
    schedule: 'linear',
    micro_batch_size: 4,
  });
});

test('the multiplier multiplies the default rate, up to the highest one allowed', () => {
  expect(settle({}, 100).learning_rate).toBe(LEARNING_RATE_DEFAULT);
  expect(settle({ learning_rate_multiplier: 2 }, 100)).toMatchObject({ learning_rate: 2 * LEARNING_RATE_DEFAULT, learning_rate_multiplier: 2 });
  expect(settle({ learning_rate_multiplier: 10_000 }, 100)).toMatchObject({ learning_rate: 1, learning_rate_multiplier: 1 / LEARNING_RATE_DEFAULT });
});

test('an automatic batch holds at least one micro batch', () => {
  expect(settle({ micro_batch_size: 16 }, 400).batch_size).toBe(16);
});

test('the last batch of an epoch may be short', () => {
  expect(stepsOf({ n_epochs: 3, batch_size: 8 }, 17)).toBe(9);
});

test('property: whatever the number of examples, the defaults are within what a worker takes', () => {
  const { epochs, batchSize, learningRate } = fineTuneSpecSchema.shape;
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 10_000_000 }), (examples) => {
      const settled = settle({}, examples);
      expect(epochs.safeParse(settled.n_epochs).success && batchSize.safeParse(settled.batch_size).success && learningRate.safeParse(settled.learning_rate).success).toBe(true);
      expect(settled.batch_size).toBeLessThanOrEqual(examples);
    }),
  );
});

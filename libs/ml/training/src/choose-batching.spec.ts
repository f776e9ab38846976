import { chooseBatching, type BatchingRequest } from './choose-batching';

/** 100 bytes per row, a tenth of it when blocks are recomputed. */
const request = (overrides: Partial<BatchingRequest>): BatchingRequest => ({
  batchSize: 16,
  longestRow: 128,
  tokensPerPass: 1024,
  availableBytes: 1e9,
  estimateBytes: ({ microBatchSize, recomputeBlocks }) => microBatchSize * (recomputeBlocks ? 10 : 100),
  ...overrides,
});

it.each([
  ['enough tokens for a fast pass', {}, { microBatchSize: 8, recomputeBlocks: false }],
  ['no more than the batch', { longestRow: 8 }, { microBatchSize: 16, recomputeBlocks: false }],
  ['at least one example', { longestRow: 5000 }, { microBatchSize: 1, recomputeBlocks: false }],
  ['what the user allows', { microBatchSizeMax: 3 }, { microBatchSize: 3, recomputeBlocks: false }],
  ['more where the device wants more', { tokensPerPass: 16_384 }, { microBatchSize: 16, recomputeBlocks: false }],
  ['the user may go beyond the usual', { microBatchSizeMax: 16 }, { microBatchSize: 16, recomputeBlocks: false }],
  ['less where memory is short', { availableBytes: 250 }, { microBatchSize: 2, recomputeBlocks: false }],
  ['recomputed blocks as the last resort', { availableBytes: 90 }, { microBatchSize: 8, recomputeBlocks: true }],
] as const)('takes %s', (_what, overrides, expected) => {
  expect(chooseBatching(request(overrides))).toEqual(expected);
});

it('says how much is missing when nothing fits', () => {
  const impossible = request({ estimateBytes: () => 5e9, availableBytes: 2e9 });
  expect(() => chooseBatching(impossible)).toThrow(/one example of 128 tokens needs about 5000 MB, 2000 MB are free/);
  expect(() => chooseBatching(impossible)).toThrow(expect.objectContaining({ code: 'out_of_device_memory', param: 'max_seq_length' }) as Error);
});

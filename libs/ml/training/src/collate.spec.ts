import { PackedDataset } from '@tunefleet/ml-data';
import { collate } from './collate';

/** Two examples: [5 6 7] learning 6 and 7, and [8 9 1 2 3 4 5 6 7] learning 8 (first: never predicted) and the last two. */
const dataset = new PackedDataset('test', {
  lengths: Int32Array.of(3, 9),
  ids: Int32Array.of(5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7),
  learned: Uint8Array.of(0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1),
});

it('pads on the right to a multiple of eight and lets each position predict the next token', () => {
  const batch = collate(dataset, Int32Array.of(1, 0));
  expect([batch.tokens.rows, batch.tokens.columns]).toEqual([2, 16]);
  expect([...batch.tokens.ids]).toEqual([8, 9, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 5, 6, 7, ...Array<number>(13).fill(7)]);
  const labels = Array.from(batch.labels, (label, at) => (label === -100 ? null : [at, label])).filter((pair) => pair !== null);
  expect(labels).toEqual([
    [6, 6],
    [7, 7],
    [16, 6],
    [17, 7],
  ]);
  expect([batch.tokenCount, batch.lossTokens]).toEqual([12, 4]);
});

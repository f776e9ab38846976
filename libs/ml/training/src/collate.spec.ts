import { PackedDataset } from '@tunefleet/ml-data';
import { collate } from './collate';

/** Two examples: [5 6 7 7 7 7 7 7 7 7] learning the first 6 and 7, and [8 9 1 2 3 4 5 6 7] learning 8 (first: never predicted) and the last two. */
const dataset = new PackedDataset('test', {
  lengths: Int32Array.of(10, 9),
  ids: Int32Array.of(5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7),
  learned: Uint8Array.of(0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1),
});

/** So dear are query-key pairs that examples stay in rows of their own. */
const NO_SHARING = 1e-9;

it('pads on the right to a multiple of eight and lets each position predict the next token', () => {
  const batch = collate(dataset, Int32Array.of(0, 1), NO_SHARING);
  expect([batch.tokens.rows, batch.tokens.columns, batch.tokens.branches]).toEqual([2, 16, undefined]);
  expect([...batch.tokens.ids]).toEqual([5, 6, ...Array<number>(14).fill(7), 8, 9, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7]);
  const labels = Array.from(batch.labels, (label, at) => (label === -100 ? null : [at, label])).filter((pair) => pair !== null);
  expect(labels).toEqual([
    [0, 6],
    [1, 7],
    [22, 6],
    [23, 7],
  ]);
  expect([batch.tokenCount, batch.lossTokens]).toEqual([19, 4]);
});

/** Examples that begin with [5 6] and learn their last token, 9. */
const alike = new PackedDataset('alike', {
  lengths: Int32Array.of(6, 5, 4, 4, 4),
  ids: Int32Array.of(5, 6, 1, 4, 4, 9, 5, 6, 1, 2, 9, 5, 6, 3, 9, 5, 6, 4, 9, 5, 6, 7, 9),
  learned: Uint8Array.of(0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1),
});

it('examples share a row and their prefix, each at the positions it would have alone', () => {
  const { tokens, labels, lengths, tokenCount, lossTokens } = collate(alike, Int32Array.of(0, 1, 2, 3, 4), 1400);
  expect([tokens.rows, tokens.columns, tokenCount, lossTokens]).toEqual([1, 16, 23, 5]);
  expect([...tokens.ids]).toEqual([5, 6, 1, 4, 4, 9, 1, 2, 9, 3, 9, 4, 9, 7, 9, 9]);
  expect([...(tokens.positions ?? [])]).toEqual([0, 1, 2, 3, 4, 5, 2, 3, 4, 2, 3, 2, 3, 2, 3, 0]);
  expect([...(tokens.branches ?? [])]).toEqual([0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6]);
  expect([...lengths]).toEqual([6, 6, 6, 6, 6, 6, 5, 5, 5, 4, 4, 4, 4, 4, 4, 0]);
  expect([...labels].map((label, at) => [at, label]).filter(([, label]) => label !== -100)).toEqual([[4, 9], [7, 9], [9, 9], [11, 9], [13, 9]]);
});

it('does not share what predicts a learned token', () => {
  const learned = Uint8Array.of(0, 0, 1, 1, 0, 0, 1, 1);
  const early = new PackedDataset('early', { lengths: Int32Array.of(4, 4), ids: Int32Array.of(5, 6, 7, 8, 5, 6, 7, 9), learned });
  const { tokens, labels } = collate(early, Int32Array.of(0, 1), 1400);
  // One token of prefix, [5]: token 6 predicts the learned 7.
  expect([...tokens.ids].slice(0, 7)).toEqual([5, 6, 7, 8, 6, 7, 9]);
  expect([...labels].slice(0, 7)).toEqual([-100, 7, 8, -100, 7, 9, -100]);
});

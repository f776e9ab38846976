import fc from 'fast-check';
import { layOut, layoutCost, scoresOf } from './batch-layout';

const PAIRS_PER_TOKEN = 1400;

it('leaves long examples of one length in rows of their own', () => {
  expect(layOut({ lengths: [256, 256, 256, 256], sharedPrefix: 0, pairsPerToken: PAIRS_PER_TOKEN })).toEqual({ rows: [[0], [1], [2], [3]], columns: 256, trunks: [0, 0, 0, 0] });
});

it('lets short examples share the prefix they have in common', () => {
  const layout = layOut({ lengths: [88, 88, 88, 88], sharedPrefix: 30, pairsPerToken: PAIRS_PER_TOKEN });
  expect(layout).toEqual({ rows: [[0, 1, 2, 3]], columns: 264, trunks: [30] });
});

it('fills up rows that would be mostly padding', () => {
  const layout = layOut({ lengths: [200, 60, 50, 40, 30], sharedPrefix: 0, pairsPerToken: PAIRS_PER_TOKEN });
  expect(layout).toEqual({ rows: [[0, 1, 2, 3, 4]], columns: 384, trunks: [0] });
});

it('a prefix of long examples is shared, too: blocks of queries leave out the other example', () => {
  expect(layOut({ lengths: [1000, 1000], sharedPrefix: 100, pairsPerToken: PAIRS_PER_TOKEN })).toEqual({ rows: [[0, 1]], columns: 1904, trunks: [100] });
});

it('holds every example once, fits, and is never dearer than one example per row', () => {
  const options = fc.record({
    lengths: fc.array(fc.integer({ min: 2, max: 700 }), { minLength: 1, maxLength: 32 }).map((lengths) => lengths.sort((a, b) => b - a)),
    share: fc.double({ min: 0, max: 0.99, noNaN: true }),
  });
  fc.assert(
    fc.property(options, ({ lengths, share }) => {
      const sharedPrefix = Math.floor(Math.min(...lengths) * share);
      const { rows, columns, trunks } = layOut({ lengths, sharedPrefix, pairsPerToken: PAIRS_PER_TOKEN });
      expect(rows.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, index) => index));
      expect(Math.max(...trunks)).toBeLessThanOrEqual(sharedPrefix);
      rows.forEach((row, at) => expect(row.reduce((sum, index) => sum + (lengths[index] as number) - (trunks[at] ?? 0), trunks[at] ?? 0)).toBeLessThanOrEqual(columns));
      const single = Math.ceil((lengths[0] as number) / 8) * 8;
      const alone = { rows: lengths.map((_, index) => [index]), columns: single, trunks: lengths.map(() => 0) };
      expect(layoutCost({ rows, columns, trunks }, lengths, PAIRS_PER_TOKEN)).toBeLessThanOrEqual(layoutCost(alone, lengths, PAIRS_PER_TOKEN));
      expect(scoresOf({ rows, columns, trunks }, lengths).atOnce).toBeLessThanOrEqual(Math.max(scoresOf(alone, lengths).atOnce, 2 ** 18));
    }),
    { seed: 9, numRuns: 200 },
  );
});

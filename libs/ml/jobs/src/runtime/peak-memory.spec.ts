import { existsSync } from 'node:fs';
import { PeakMemory, peakRssBytes, resetPeakRss } from './peak-memory';

const MEBIBYTE = 1024 ** 2;

test('the peak covers what was held and given back', () => {
  const before = peakRssBytes();
  // Filled, so that its pages are really resident.
  const bytes = Buffer.alloc(256 * MEBIBYTE, 1).length;
  expect(peakRssBytes()).toBeGreaterThanOrEqual(Math.max(before, bytes));
});

(existsSync('/proc/self/clear_refs') ? test : test.skip)('a reset brings it down to what is resident (skipped where the system has no reset)', () => {
  resetPeakRss();
  expect(Math.abs(peakRssBytes() - process.memoryUsage.rss())).toBeLessThan(64 * MEBIBYTE);
});

test('runs that overlap have a peak each, of one counter, and know that it is not theirs alone', () => {
  let [now, highest] = [0, 0];
  const use = (bytes: number): void => void ([now, highest] = [bytes, Math.max(highest, bytes)]);
  const peaks = new PeakMemory({ read: () => highest, reset: () => void (highest = now) });
  const first = peaks.start();
  use(50);
  use(10);
  const second = peaks.start();
  use(30);
  expect([first, second].map(({ bytes, isShared }) => [bytes, isShared])).toEqual([[50, true], [30, true]]);
  first[Symbol.dispose]();
  second[Symbol.dispose]();
  use(5);
  const third = peaks.start();
  expect([third.bytes, third.isShared]).toEqual([5, false]);
});

import { existsSync } from 'node:fs';
import { peakRssBytes, resetPeakRss } from './peak-memory';

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

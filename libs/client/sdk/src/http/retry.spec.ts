import fc from 'fast-check';
import { mayRetry, retryDelayMs } from './retry';

const headers = (fields: Record<string, string>) => new Headers(fields);
const now = Date.parse('2026-11-25T12:00:00Z');

test.each([
  [{ 'retry-after-ms': '20', 'retry-after': '9' }, 20],
  [{ 'retry-after': '2' }, 2000],
  [{ 'retry-after': 'Wed, 25 Nov 2026 12:00:03 GMT' }, 3000],
])('the server names the delay: %j', (fields, expected) => {
  expect(retryDelayMs(headers(fields), 1, now)).toBe(expected);
});

test.each([{ 'retry-after': '3600' }, { 'retry-after': '-1' }, { 'retry-after': 'soon' }, {}])('otherwise it doubles: %j', (fields) => {
  expect([1, 2, 3, 9].map((attempt) => retryDelayMs(headers(fields as Record<string, string>), attempt, now, () => 1))).toEqual([500, 1000, 2000, 8000]);
});

test('property: what is not repeatable is only tried again when the server did nothing, or says so', () => {
  fc.assert(
    fc.property(fc.option(fc.integer({ min: 400, max: 599 })), fc.constantFrom(undefined, 'true', 'false'), (status, advice) => {
      const outcome = { status, headers: headers(advice === undefined ? {} : { 'x-should-retry': advice }) };
      const expected = advice === undefined ? status === 429 || status === 503 : advice === 'true';
      expect(mayRetry(outcome, false)).toBe(expected);
    }),
  );
});

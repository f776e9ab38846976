import { jest } from '@jest/globals';
import { ManualClock } from '@tunefleet/foundation';
import { LeaseClock } from './lease-clock';

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

test('it is over the margin before its end, each renewal counts from its receipt, and it fires once', () => {
  const clock = new ManualClock();
  let over = 0;
  const lease = new LeaseClock(clock, 5_000, () => over++);
  const pass = (ms: number): void => {
    clock.advance(ms);
    jest.advanceTimersByTime(ms);
  };
  lease.renew(30_000);
  pass(20_000);
  lease.renew(30_000);
  pass(24_999);
  expect([over, lease.isOver]).toEqual([0, false]);
  pass(1);
  expect([over, lease.isOver]).toEqual([1, true]);
  pass(60_000);
  expect(over).toBe(1);
});

test('a stopped lease says nothing', () => {
  let over = 0;
  const lease = new LeaseClock(new ManualClock(), 5_000, () => over++);
  lease.renew(6_000);
  lease.stop();
  jest.advanceTimersByTime(60_000);
  expect(over).toBe(0);
});

test('a short lease has a margin of a sixth', () => {
  const clock = new ManualClock();
  const lease = new LeaseClock(clock, 5_000, () => undefined);
  lease.renew(9_000);
  clock.advance(7_499);
  expect(lease.isOver).toBe(false);
  clock.advance(1);
  expect(lease.isOver).toBe(true);
  lease.stop();
});

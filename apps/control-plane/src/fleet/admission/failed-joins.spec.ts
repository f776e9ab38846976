import { ManualClock } from '@tunefleet/foundation';
import { FailedJoins } from './failed-joins';

test('an address that failed too often waits until its first failure is old; others do not', () => {
  const clock = new ManualClock(0);
  const failed = new FailedJoins(clock, { failures: 3, withinMs: 60_000 });
  for (let i = 0; i < 3; i++) {
    expect(() => failed.requireFew('a')).not.toThrow();
    failed.add('a');
    clock.advance(1_000);
  }
  expect(() => failed.requireFew('a')).toThrow(expect.objectContaining({ code: 'capacity', message: expect.stringContaining('try again in 57 s') }));
  expect(() => failed.requireFew('b')).not.toThrow();
  clock.advance(56_999);
  expect(() => failed.requireFew('a')).toThrow();
  clock.advance(1);
  expect(() => failed.requireFew('a')).not.toThrow();
});

test('however many addresses fail, memory is bounded and the latest are remembered', () => {
  const failed = new FailedJoins(new ManualClock(0), { failures: 1, withinMs: 60_000 });
  for (let i = 0; i <= 10_000; i++) failed.add(`address-${i}`);
  expect(() => failed.requireFew('address-0')).not.toThrow();
  expect(() => failed.requireFew('address-1')).toThrow();
  expect(() => failed.requireFew('address-10000')).toThrow();
});

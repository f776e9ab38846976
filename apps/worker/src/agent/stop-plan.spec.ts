import { decideStop, parseStopReason } from './stop-plan';

const settings = { stopMs: 2_000, checkpointStopMs: 20_000, checkpointStopMsMax: 600_000 };

test.each(['cancelled', 'stale'] as const)('%s: everything is dropped, soon', (reason) => {
  expect(decideStop(reason, 60_000, settings)).toEqual({ drop: true, checkpoint: false, killAfterMs: 2_000 });
});

test.each(['paused', 'preempted', 'lease_lost', 'shutdown'] as const)('%s: a checkpoint is written within the time granted', (reason) => {
  expect(decideStop(reason, 0, settings)).toEqual({ drop: false, checkpoint: true, killAfterMs: 20_000 });
  expect(decideStop(reason, 5_000, settings).killAfterMs).toBe(5_000);
  expect(decideStop(reason, 120_000, settings).killAfterMs).toBe(120_000);
  expect(decideStop(reason, 5_000_000, settings).killAfterMs).toBe(600_000);
});

test('an unknown reason drops', () => {
  expect(parseStopReason('paused')).toBe('paused');
  expect(parseStopReason('toString')).toBe('stale');
  expect(parseStopReason('')).toBe('stale');
});

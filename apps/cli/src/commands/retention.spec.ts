import type { RetentionReport } from '@tunefleet/contracts';
import { added } from './retention';

const report = (complete: boolean, rows: number): RetentionReport => ({
  object: 'retention.report',
  applied: true,
  complete,
  data: [{ kind: 'events', older_than_seconds: 60, keep: 0, rows, bytes: rows * 100 }],
});

test('what several requests removed adds up', () => {
  expect(added(report(false, 1_000), report(true, 5))).toEqual(report(true, 1_005));
});

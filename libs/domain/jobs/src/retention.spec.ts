import { RETENTION_KINDS } from '@tunefleet/contracts';
import { defaultRetention, parseRetention, retentionRules } from './retention';

const DAY_MS = 86_400_000;

test('rules come in the order of removal, blobs last, and with their defaults', () => {
  expect(parseRetention('artifacts=7d, checkpoints=30d ,events=90m:5')).toEqual([
    { kind: 'events', olderThanMs: 5_400_000, keep: 5 },
    { kind: 'checkpoints', olderThanMs: 30 * DAY_MS, keep: 1 },
    { kind: 'artifacts', olderThanMs: 7 * DAY_MS, keep: 0 },
  ]);
  expect(parseRetention('')).toEqual([]);
});

test('the defaults cover every kind and are rules themselves', () => {
  expect(defaultRetention.map(({ kind }) => kind)).toEqual(RETENTION_KINDS);
  expect(retentionRules(new Map(defaultRetention.map((rule) => [rule.kind, rule])))).toEqual(defaultRetention);
});

test.each([
  ['events', /is no retention rule/],
  ['events=5', /is no retention rule/],
  ['events=5w', /is no retention rule/],
  ['jobs=5d', /"jobs" is nothing that is kept: outbox, events/],
  ['events=5d,events=6d', /given twice/],
  ['artifacts=59m', /retention of artifacts: 59 min is too short: at least 1 h/],
  ['attempts=61d', /61 d is too short: at least 62 d/],
  ['metrics=5d:3', /no number can be kept of metrics; only of checkpoints and events/],
  ['attempts=100d,metrics=180d', /100 d is shorter than the 180 d of metrics/],
])('%s is refused', (text, message) => expect(() => parseRetention(text)).toThrow(expect.objectContaining({ code: 'invalid_input', message: expect.stringMatching(message) as string })));

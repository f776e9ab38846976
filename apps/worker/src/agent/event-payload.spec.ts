import { toEventPayload, toFailed } from './event-payload';

test('what is too long is cut, what is not an object is left out', () => {
  const payload = toEventPayload({ type: 'log', runId: 'r', level: 'error', message: 'x'.repeat(9_000), data: { text: 'y'.repeat(40_000) } });
  expect(payload).toMatchObject({ $case: 'log', value: { dataJson: '' } });
  expect(payload.$case === 'log' && payload.value.message.length).toBe(4_000);
  expect(toEventPayload({ type: 'log', runId: 'r', level: 'info', message: 'm', data: [1] })).toMatchObject({ value: { dataJson: '' } });
  expect(toEventPayload({ type: 'log', runId: 'r', level: 'info', message: 'm', data: { a: 1 } })).toMatchObject({ value: { dataJson: '{"a":1}' } });
});

test('an estimate that has gone below zero is zero', () => {
  const payload = toEventPayload({ type: 'progress', runId: 'r', step: 3, totalSteps: 4, phase: 'training', tokensPerSecond: -1, etaSeconds: -5 });
  expect(payload).toMatchObject({ value: { step: 3, tokensPerSecond: 0, etaSeconds: 0 } });
});

test('a failure without log lines takes the engine’s last output', () => {
  const failure = { class: 'infrastructure', code: 'c', message: 'm', param: null, logTail: [] } as const;
  const lines = Array.from({ length: 80 }, (_, i) => `line ${i}`);
  expect(toFailed({ ...failure, logTail: [] }, lines)).toMatchObject({ value: { param: '', logTail: lines.slice(30) } });
  expect(toFailed({ ...failure, logTail: ['own'] }, lines)).toMatchObject({ value: { logTail: ['own'] } });
});

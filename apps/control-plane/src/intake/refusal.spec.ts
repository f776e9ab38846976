import { failureSchema } from '@tunefleet/contracts';
import { TunefleetError, type ErrorCode } from '@tunefleet/foundation';
import { lastFailure, userFailure } from './refusal';

test('a user error ends the job with its reason, field and further problems', () => {
  const problems = Array.from({ length: 60 }, (_, index) => ({ message: `row ${index + 1}: bad` }));
  const failure = userFailure(new TunefleetError('invalid_input', 'row 1: bad', { reason: 'invalid_training_file', param: 'training_file', details: { problems } }));
  expect(failure).toMatchObject({ class: 'user', code: 'invalid_training_file', param: 'training_file', message: 'row 1: bad' });
  expect(failure?.logTail).toHaveLength(50);
  expect(failureSchema.safeParse(failure).success).toBe(true);
});

test("what a file puts into a message can be stored, whatever it is", () => {
  const failure = userFailure(new TunefleetError('invalid_input', `NUL \u0000, half a pair \ud800, ${'x'.repeat(5000)}`));
  expect(failure?.message.startsWith('NUL \ufffd, half a pair \ufffd, xxx')).toBe(true);
  expect(failureSchema.safeParse(failure).success).toBe(true);
});

test.each<[ErrorCode, string | null]>([
  ['not_found', 'user'],
  ['permission_denied', 'user'],
  ['incompatible_artifact', 'user'],
  ['out_of_device_memory', 'resource'],
  ['unavailable', null],
  ['conflict', null],
  ['cancelled', null],
  ['invariant', null],
])('%s: class %s at once', (code, expected) => {
  expect(userFailure(new TunefleetError(code, 'm'))?.class ?? null).toBe(expected);
});

test('what somebody else broke says so after a while; a bug keeps its message to the log', () => {
  expect(lastFailure(new TunefleetError('unavailable', 'the hub did not answer', { param: 'model' }), 600_000)).toMatchObject({
    class: 'infrastructure',
    code: 'unavailable',
    param: 'model',
    message: 'the job could not be checked (tried for 10 minutes): the hub did not answer. Submit it again later',
  });
  for (const bug of [new TypeError('secret'), new TunefleetError('invariant', 'secret')]) {
    const failure = lastFailure(bug, 60_000);
    expect(failure.class).toBe('platform');
    expect(failure.message).not.toContain('secret');
  }
});

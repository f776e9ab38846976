import { createFineTuningJobSchema, createEvalSchema } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';
import { errorAnswer } from './error-answer';
import { inputError } from './input-error';
import { foldQuery } from './query';
import { rangeOf } from './send-blob';
import { requireStorable } from './storable';

function refusal(schema: z.ZodType, input: unknown): TunefleetError {
  const parsed = schema.safeParse(input);
  if (parsed.success) throw new Error('it was expected to be refused');
  return inputError(parsed.error, input);
}

describe('inputError', () => {
  const job = { model: 'm', training_file: 'f' };

  test('names what is missing, unknown or of the wrong kind', () => {
    expect(refusal(createFineTuningJobSchema, { model: 'm' })).toMatchObject({ reason: 'missing_required_parameter', param: 'training_file' });
    expect(refusal(createFineTuningJobSchema, { ...job, method: { kind: 1 } })).toMatchObject({ reason: 'unknown_parameter', param: 'method.kind' });
    expect(refusal(createFineTuningJobSchema, { ...job, seed: '1' })).toMatchObject({ reason: 'invalid_type', param: 'seed', message: expect.stringContaining('"1"') });
  });

  test('says of a union what each member would have taken', () => {
    const { message, param } = refusal(createFineTuningJobSchema, { ...job, hyperparameters: { n_epochs: 99 } });
    expect(param).toBe('hyperparameters.n_epochs');
    expect(message).toMatch(/99/);
    expect(message).toMatch(/50/);
    expect(refusal(createEvalSchema, { model: 'm', file: 'f', metric: {} })).toMatchObject({ reason: 'missing_required_parameter', param: 'metric.type' });
  });

  test('cuts long values', () => {
    expect(refusal(createFineTuningJobSchema, { ...job, suffix: 'x'.repeat(10_000) }).message.length).toBeLessThan(400);
  });
});

describe('foldQuery', () => {
  test('folds brackets and the literal null', () => {
    expect(foldQuery({ limit: '2', 'metadata[a]': '1', 'metadata[b]': '2' })).toEqual({ limit: '2', metadata: { a: '1', b: '2' } });
    expect(foldQuery({ metadata: 'null' })).toEqual({ metadata: null });
    expect(foldQuery({ name: 'null' })).toEqual({ name: 'null' });
    expect(foldQuery(undefined)).toEqual({});
  });

  test('leaves malformed brackets and prototypes alone', () => {
    expect(foldQuery({ 'a[': '1' })).toEqual({ 'a[': '1' });
    foldQuery({ '__proto__[polluted]': '1', 'a[__proto__]': '1' });
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});

describe('rangeOf', () => {
  test.each([
    ['bytes=0-0', { offset: 0, length: 1 }],
    ['bytes=2-', { offset: 2, length: 8 }],
    ['bytes=-3', { offset: 7, length: 3 }],
    ['bytes=-30', { offset: 0, length: 10 }],
    ['bytes=5-100', { offset: 5, length: 5 }],
  ])('%s of 10 bytes', (header, expected) => {
    expect(rangeOf(header, 10)).toEqual(expected);
  });

  test.each([undefined, '', 'bytes=-', 'bytes=1-2,4-5', 'lines=1-2'])('%s is the whole file', (header) => {
    expect(rangeOf(header, 10)).toBeNull();
  });

  test.each(['bytes=10-', 'bytes=5-4', 'bytes=-0'])('%s is refused', (header) => {
    expect(() => rangeOf(header, 10)).toThrow(expect.objectContaining({ reason: 'invalid_range' }));
  });
});

describe('requireStorable', () => {
  test.each([{ a: 'x\u0000' }, { 'k\u0000': 1 }, ['\ud800'], JSON.parse('{"__proto__": 1}'), Array.from({ length: 40 }).reduce((inner) => [inner], 1)])('refuses case %#', (value) => {
    expect(() => requireStorable(value, 'it')).toThrow(expect.objectContaining({ code: 'invalid_input' }));
  });

  test('takes text of every script', () => {
    expect(() => requireStorable({ a: ['ÄÖ 漢字 😀', 1, null, { b: true }] }, 'it')).not.toThrow();
  });
});

describe('errorAnswer', () => {
  test('shows nothing of a bug', () => {
    for (const error of [new Error('password is hunter2'), new TunefleetError('invariant', 'password is hunter2'), 'hunter2', null]) {
      const { status, body } = errorAnswer(error, 'req_1');
      expect(status).toBe(500);
      expect(body.error.message).toContain('req_1');
      expect(JSON.stringify(body)).not.toContain('hunter2');
    }
  });

  test('tells clients whether to come back', () => {
    expect(errorAnswer(new TunefleetError('unavailable', 'no'), 'r')).toMatchObject({ status: 503, headers: { 'retry-after': '1' }, body: { error: { type: 'server_error', code: null } } });
    expect(errorAnswer(new TunefleetError('conflict', 'no', { retry: 'never' }), 'r')).toMatchObject({ status: 409, headers: { 'x-should-retry': 'false' } });
    expect(errorAnswer(new TunefleetError('conflict', 'no'), 'r').headers).toEqual({});
  });
});

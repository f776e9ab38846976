import type { DatasetRow } from '@tunefleet/domain-datasets';
import { LengthMeter } from './row-lengths';
import { settleSequenceLength } from './sequence-length';

const completion = (characters: number): DatasetRow => ({ format: 'completion', prompt: 'p', completion: 'x'.repeat(characters - 1) });

function lengthsOf(...rows: DatasetRow[]) {
  const meter = new LengthMeter();
  rows.forEach((row, index) => meter.add(row, index + 1));
  return meter.lengths();
}

const settle = (asked: number | null, maxPositions: number, ...rows: DatasetRow[]) => settleSequenceLength({ asked, maxPositions, files: [{ param: 'training_file', lengths: lengthsOf(...rows) }] });

test('lengths count bytes of texts, tool calls and tools', () => {
  const chat: DatasetRow = { format: 'chat', messages: [{ role: 'user', content: 'ü' }, { role: 'assistant', content: 'ab' }] };
  expect(lengthsOf(chat)).toEqual({ longest: { line: 1, bytes: 4, tokensExpected: 1 + 2 * 5, tokensAtMost: 4 + 2 * 24 + 64 }, tokensExpected: 11 });
  const withTools: DatasetRow = { ...chat, tools: [{ type: 'function' }], messages: [...chat.messages, { role: 'assistant', content: null, tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: '{}' } }] }] };
  expect(lengthsOf(withTools).longest?.bytes).toBeGreaterThan(100);
});

test('left out, the sequence is as long as the longest row can be, in whole steps', () => {
  expect(settle(null, 8192, completion(100), completion(1000))).toEqual({ maxSequenceLength: 1088, tokensExpected: 255, notices: [] });
});

test('left out, it ends at what the model can do, with a notice about a row that may not fit', () => {
  const { maxSequenceLength, notices } = settle(null, 512, completion(40), completion(4000));
  expect(maxSequenceLength).toBe(512);
  expect(notices).toEqual([expect.stringMatching(/^training_file: row 2 has about 1005 tokens, more than the maximum sequence length 512/)]);
});

test('longer than the model: refused with both numbers', () => {
  expect(() => settle(1024, 512, completion(10))).toThrow(expect.objectContaining({ code: 'invalid_input', param: 'max_seq_length', message: 'max_seq_length is 1024, but the model was made for at most 512 tokens: ask for 512 or fewer' }));
});

test.each([
  [64, 512, 'raise max_seq_length (at most 512 for this model)'],
  [null, 64, 'or split it'],
])('a row that cannot fit whatever the tokenizer is refused (asked %p)', (asked, maxPositions, advice) => {
  expect(() => settle(asked, maxPositions, completion(10), completion(64 * 128 + 1))).toThrow(
    expect.objectContaining({ reason: 'row_too_long', param: 'training_file', message: expect.stringMatching(/^training_file: row 2: has at least 65 tokens, more than the maximum sequence length 64; .*/) as unknown }),
  );
  expect(() => settle(asked, maxPositions, completion(64 * 128 + 1))).toThrow(advice);
  expect(settle(asked, maxPositions, completion(64 * 128)).maxSequenceLength).toBe(64);
});

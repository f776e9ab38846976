import fc from 'fast-check';
import { datasetError, parsePreferenceRow, parseRow, parseTextRow, splitLines, validateDataset, type DatasetReport, type Line, type ValidateOptions } from './index';

const row = (n: number): string => JSON.stringify({ messages: [{ role: 'user', content: `q${n}` }, { role: 'assistant', content: `a${n}` }] });
const good = (count: number): string => Array.from({ length: count }, (_, n) => row(n)).join('\n');
const check = (text: string, options?: ValidateOptions): Promise<DatasetReport> => validateDataset(splitLines([Buffer.from(text)]), options);
async function collect(lines: AsyncIterable<Line>): Promise<Line[]> {
  const out: Line[] = [];
  for await (const line of lines) out.push(line);
  return out;
}

describe('splitLines', () => {
  it('gives the same lines however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: 'grapheme' }).map((text) => text.replace(/[\r\n]/g, '_'))), fc.array(fc.nat(400)), async (rows, cuts) => {
        const bytes = Buffer.from(rows.join('\n'));
        const borders = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
        const chunks = borders.slice(1).map((end, index) => bytes.subarray(borders[index], end));
        expect(await collect(splitLines(chunks))).toEqual(await collect(splitLines([bytes])));
      }),
    );
  });

  it('drops the byte order mark, carriage returns and blank lines, and keeps the numbering', async () => {
    expect(await collect(splitLines([Buffer.from('\ufeffa\r\n\r\n  \nb')]))).toEqual([
      { number: 1, text: 'a', fault: null },
      { number: 4, text: 'b', fault: null },
    ]);
  });

  it('reports lines that are too long or not UTF-8 and goes on', async () => {
    const bytes = Buffer.concat([Buffer.from('12345678901\n'), Buffer.from([0xff, 0x0a]), Buffer.from('ok')]);
    expect(await collect(splitLines([bytes.subarray(0, 5), bytes.subarray(5)], 10))).toEqual([
      { number: 1, text: null, fault: 'line_too_long' },
      { number: 2, text: null, fault: 'invalid_utf8' },
      { number: 3, text: 'ok', fault: null },
    ]);
  });
});

describe('parseRow', () => {
  const message = (role: string, content: unknown, more: object = {}): object => ({ role, content, ...more });
  it.each<[string, unknown, string, string]>([
    ['broken JSON', '{"messages": [', 'invalid_json', ''],
    ['a list', [], 'not_an_object', ''],
    ['two formats', { messages: [], prompt: 'x' }, 'two_formats_in_row', ''],
    ['another vendor\'s format', { conversations: [] }, 'unknown_format', ''],
    ['no messages', { messages: [] }, 'bad_messages', '/messages'],
    ['messages of the wrong type', { messages: 'hi' }, 'bad_messages', '/messages'],
    ['an unknown role', { messages: [message('human', 'x'), message('assistant', 'y')] }, 'bad_role', '/messages/0/role'],
    ['a number as content', { messages: [message('user', 3), message('assistant', 'y')] }, 'bad_content', '/messages/0/content'],
    ['an empty assistant turn', { messages: [message('user', 'x'), message('assistant', '  ')] }, 'empty_assistant', '/messages/1/content'],
    ['no content for the user', { messages: [message('user', null), message('assistant', 'y')] }, 'missing_content', '/messages/0/content'],
    ['a user at the end', { messages: [message('assistant', 'y'), message('user', 'x')] }, 'last_not_assistant', '/messages/1/role'],
    ['a bad weight', { messages: [message('user', 'x'), message('assistant', 'y', { weight: 0.5 })] }, 'bad_weight', '/messages/1/weight'],
    ['nothing to learn', { messages: [message('user', 'x'), message('assistant', 'y', { weight: 0 })] }, 'nothing_to_learn', '/messages'],
    ['a weight on the user', { messages: [message('user', 'x', { weight: 1 }), message('assistant', 'y')] }, 'weight_on_other_role', '/messages/0/weight'],
    ['a missing completion', { prompt: 'x' }, 'bad_completion', '/completion'],
    ['an empty completion', { prompt: 'x', completion: '\n' }, 'empty_completion', '/completion'],
  ])('refuses %s', (_what, value, rule, pointer) => {
    const parsed = parseRow(typeof value === 'string' ? value : JSON.stringify(value), 7);
    expect(parsed).toMatchObject({ ok: false, problems: [{ line: 7, rule, pointer }] });
    if (!parsed.ok) expect(parsed.problems[0]?.message).toMatch(/^row 7/);
  });

  it('joins text parts, maps developer to system and hashes by meaning', () => {
    const a = parseRow('{"messages":[{"role":"developer","content":[{"type":"text","text":"be "},{"type":"text","text":"kind"}]},{"role":"assistant","content":"ok"}]}', 1);
    const b = parseRow('{ "messages": [ {"content":"be kind","role":"system"}, {"role":"assistant","content":"ok"} ] }', 2);
    expect(a).toMatchObject({ ok: true, row: { format: 'chat', messages: [{ role: 'system', content: 'be kind' }, { role: 'assistant' }] } });
    expect(a.ok && b.ok && a.hash === b.hash).toBe(true);
  });

  it('never throws', () => {
    fc.assert(fc.property(fc.json(), (text) => expect(typeof parseRow(text, 1).ok).toBe('boolean')));
    fc.assert(fc.property(fc.string(), (text) => expect(parseRow(text, 1).ok).toBe(false)));
  });
});

describe('parsePreferenceRow', () => {
  const [user, good, bad] = [{ role: 'user', content: 'q' }, { role: 'assistant', content: 'good' }, { role: 'assistant', content: 'bad' }];
  const pair = (changes: object = {}): object => ({ input: { messages: [user] }, preferred_output: [good], non_preferred_output: [bad], ...changes });

  it('takes a pair with context and tools', () => {
    const parsed = parsePreferenceRow(JSON.stringify(pair({ input: { messages: [{ role: 'developer', content: 's' }, user, good, user], tools: [{ type: 'function' }] } })), 1);
    expect(parsed).toMatchObject({ ok: true, row: { format: 'preference', input: { messages: [{ role: 'system' }, {}, {}, {}] }, preferred_output: [good], non_preferred_output: [bad] } });
  });

  it.each<[string, object, string, string]>([
    ['a chat row', { messages: [user, good] }, 'unknown_format', ''],
    ['a missing output', { input: { messages: [user] }, preferred_output: [good] }, 'bad_non_preferred_output', '/non_preferred_output'],
    ['a text as output', pair({ preferred_output: 'good' }), 'bad_preferred_output', '/preferred_output'],
    ['two messages in an output', pair({ preferred_output: [good, good] }), 'not_one_answer', '/preferred_output'],
    ["a user's output", pair({ non_preferred_output: [user] }), 'answer_not_assistant', '/non_preferred_output/0/role'],
    ['an empty output', pair({ preferred_output: [{ role: 'assistant', content: ' ' }] }), 'empty_assistant', '/preferred_output/0/content'],
    ['an output of weight 0', pair({ preferred_output: [{ ...good, weight: 0 }] }), 'weight_on_answer', '/preferred_output/0/weight'],
    ['equal outputs', pair({ non_preferred_output: [good] }), 'same_outputs', '/non_preferred_output'],
    ['an input that is answered', pair({ input: { messages: [user, good] } }), 'input_ends_with_assistant', '/input/messages/1/role'],
    ['no messages in the input', pair({ input: { messages: [] } }), 'bad_messages', '/input/messages'],
    ['an input without content', pair({ input: { messages: [{ role: 'user' }] } }), 'missing_content', '/input/messages/0/content'],
  ])('refuses %s', (_what, value, rule, pointer) => {
    expect(parsePreferenceRow(JSON.stringify(value), 7)).toMatchObject({ ok: false, problems: [{ line: 7, rule, pointer, message: expect.stringMatching(/^row 7/) as unknown }] });
  });

  it('never throws', () => {
    fc.assert(fc.property(fc.json(), (text) => expect([typeof parsePreferenceRow(text, 1).ok, typeof parseTextRow(text, 1).ok]).toEqual(['boolean', 'boolean'])));
  });
});

test.each<[string, object, string]>([
  ['a blank text', { text: ' ' }, 'empty_text'],
  ['a number', { text: 3 }, 'bad_text'],
  ['a chat row', { messages: [] }, 'unknown_format'],
  ['two formats', { text: 'x', prompt: 'y' }, 'two_formats_in_row'],
])('parseTextRow refuses %s', (_what, value, rule) => {
  expect(parseTextRow(JSON.stringify(value), 3)).toMatchObject({ ok: false, problems: [{ line: 3, rule }] });
  expect(parseTextRow('{"text":"a document"}', 3)).toMatchObject({ ok: true, row: { format: 'text', text: 'a document' } });
});

describe('validateDataset', () => {
  it('takes another format where it is told to', async () => {
    const report = await validateDataset(splitLines([Buffer.from('{"text":"a"}\n{"text":""}\n{"text":"b"}')]), { parse: parseTextRow, minExamples: 1 });
    expect(report).toMatchObject({ ok: false, format: 'text', examples: 2, problems: [{ line: 2, rule: 'empty_text' }] });
  });

  it('accepts a good file', async () => {
    const seen: number[] = [];
    const report = await check(good(10), { onRow: (_row, line) => seen.push(line) });
    expect(report).toMatchObject({ ok: true, format: 'chat', examples: 10, problemCount: 0, duplicates: 0 });
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  it('asks for at least ten rows unless told otherwise', async () => {
    const report = await check(good(9));
    expect(report.problems).toEqual([{ line: 0, pointer: '', rule: 'too_few_examples', message: 'the file: has 9 good rows, at least 10 are needed; add rows' }]);
    expect(datasetError(report, 'training_file')).toMatchObject({ code: 'invalid_input', reason: 'too_few_examples', param: 'training_file' });
    expect((await check(good(1), { minExamples: 1 })).ok).toBe(true);
  });

  it('keeps the first hundred problems and counts the rest', async () => {
    const report = await check(`${good(10)}\n${'{}\n'.repeat(150)}`);
    expect(report.problems).toHaveLength(100);
    expect(report.problemCount).toBe(150);
    expect(datasetError(report, 'training_file').message).toBe('training_file: row 11: has neither "messages" nor "prompt" and "completion"; write one of the two formats (and 149 more problems)');
  });

  it('refuses a file that mixes formats, naming both rows', async () => {
    const report = await check(`${good(10)}\n{"prompt":"x","completion":"y"}`);
    expect(report.problems).toMatchObject([{ line: 11, rule: 'mixed_formats', message: 'row 11: is a completion row but row 1 is a chat row; keep one format per file' }]);
  });

  it('counts duplicates and rows shared with the training file', async () => {
    const training = await check(good(10));
    const validation = await check([row(3), row(3), row(99)].join('\n'), { minExamples: 1, trainingHashes: training.hashes });
    expect(validation).toMatchObject({ ok: true, duplicates: 1, overlap: 2 });
    expect((await check(good(10).replaceAll(':', ' : '))).contentHash).toBe(training.contentHash);
  });
});

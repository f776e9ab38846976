import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { sha256Hex } from '@tunefleet/foundation';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { IGNORED_LABEL, epochOrder, fitLength, nearDuplicateGroups, readMail, spamAssassinExamples, toJsonl, tokeniseFile } from './index';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'data-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** One id per byte, BOS and EOS as 256 and 257: easy to follow by eye. */
function byteTokenizer(): TextTokenizer {
  const printable = [...Array(94).keys()].map((n) => n + 33).concat([...Array(12).keys()].map((n) => n + 161), [...Array(82).keys()].map((n) => n + 174));
  let next = 256;
  const letters = [...Array(256).keys()].map((byte) => String.fromCharCode(printable.includes(byte) ? byte : next++));
  const special = ['<s>', '</s>'].map((content, index) => ({ id: 256 + index, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }));
  const vocab = Object.fromEntries([...letters, '<s>', '</s>'].map((letter, id) => [letter, id]));
  return new TextTokenizer({
    tokenizer: JSON.stringify({ added_tokens: special, normalizer: null, pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false }, post_processor: null, decoder: { type: 'ByteLevel' }, model: { type: 'BPE', vocab, merges: [] } }),
    config: JSON.stringify({ bos_token: '<s>', eos_token: '</s>', chat_template: "{% for m in messages %}{{ m.role[0] + ':' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}" }),
  });
}

const chat = (question: string, answer: string): string => JSON.stringify({ messages: [{ role: 'user', content: question }, { role: 'assistant', content: answer }] });

describe('tokeniseFile', () => {
  const tokenizer = byteTokenizer();
  const file = (...rows: string[]): string => {
    const path = join(folder, 'rows.jsonl');
    writeFileSync(path, rows.join('\n'));
    return path;
  };

  it('gives ids and labels per row, with statistics', async () => {
    const { dataset, statistics } = await tokeniseFile(file(chat('hi', 'yo'), chat('q', 'longer')), { tokenizer, maxLength: 64 });
    expect([...dataset.lengths]).toEqual([10, 13]);
    const { inputIds, labels } = dataset.example(0);
    expect(tokenizer.decode(inputIds)).toBe('u:hi</s>a:yo</s>');
    expect(tokenizer.decode(labels.filter((label) => label !== IGNORED_LABEL))).toBe('yo</s>');
    expect(statistics).toEqual({ examples: 2, tokens: 23, lossTokens: 10, shortest: 10, longest: 13, truncated: 0, histogram: [{ upTo: 16, count: 2 }] });
    expect(() => dataset.example(2)).toThrow('example 2 of 2');
  });

  it('gives two examples per preference row, of which only the answers are learned', async () => {
    const row = { input: { messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: 'a' }, { role: 'user', content: 'r' }] }, preferred_output: [{ role: 'assistant', content: 'good' }], non_preferred_output: [{ role: 'assistant', content: 'bad' }] };
    const path = file(JSON.stringify(row));
    const { dataset, statistics } = await tokeniseFile(path, { tokenizer, maxLength: 64, purpose: 'dpo' });
    expect([dataset.length, statistics.lossTokens]).toEqual([2, 9]);
    const shown = [0, 1].map((index) => dataset.example(index)).map(({ inputIds, labels }) => [tokenizer.decode(inputIds), tokenizer.decode(labels.filter((label) => label !== IGNORED_LABEL))]);
    expect(shown).toEqual([
      ['u:q</s>a:a</s>u:r</s>a:good</s>', 'good</s>'],
      ['u:q</s>a:a</s>u:r</s>a:bad</s>', 'bad</s>'],
    ]);
    await expect(tokeniseFile(path, { tokenizer, maxLength: 18, purpose: 'dpo' })).rejects.toMatchObject({ reason: 'row_too_long', details: { row: 1, tokens: 19 } });
    await expect(tokeniseFile(path, { tokenizer, maxLength: 64 })).rejects.toThrow('preference row');
  });

  it('joins documents and cuts them into even rows, whatever their length', async () => {
    const texts = ['one', 'a document longer than a row', 'x'];
    const { dataset } = await tokeniseFile(file(...texts.map((text) => JSON.stringify({ text }))), { tokenizer, maxLength: 10, purpose: 'pretraining' });
    const all = texts.map((text) => `${text}</s>`).join('');
    expect([...dataset.lengths]).toEqual([9, 9, 9, 8]);
    const examples = Array.from({ length: dataset.length }, (_, index) => dataset.example(index));
    expect(examples.map(({ inputIds }) => tokenizer.decode(inputIds)).join('')).toBe(all);
    for (const { inputIds, labels } of examples) expect(labels).toEqual(inputIds);
    await expect(tokeniseFile(file('{"text":"  "}'), { tokenizer, maxLength: 10, purpose: 'pretraining' })).rejects.toThrow('row 1, /text: text is empty');
  });

  it('names the row that is bad or too long' , async () => {
    await expect(tokeniseFile(file(chat('a', 'b'), '{"messages":[]}'), { tokenizer, maxLength: 64 })).rejects.toMatchObject({ code: 'invalid_input', param: 'training_file', message: expect.stringContaining('row 2') });
    await expect(tokeniseFile(file(chat('a', 'b'), chat('a', 'c'.repeat(99))), { tokenizer, maxLength: 64 })).rejects.toMatchObject({ reason: 'row_too_long', details: { row: 2, tokens: 106, limit: 64 } });
    await expect(tokeniseFile(file(''), { tokenizer, maxLength: 64 })).rejects.toThrow('no rows');
  });

  it('uses its cache, and makes the tokens anew when the cache is damaged or anything changed', async () => {
    const path = file(...Array.from({ length: 200 }, (_, n) => chat(`q${n}`, `a${n}`)));
    const options = { tokenizer, maxLength: 64, cacheDirectory: join(folder, 'cache') };
    const first = await tokeniseFile(path, options);
    const second = await tokeniseFile(path, options);
    expect([first.fromCache, second.fromCache]).toEqual([false, true]);
    expect(second.statistics).toEqual(first.statistics);
    for (let index = 0; index < 200; index++) expect(second.dataset.example(index)).toEqual(first.dataset.example(index));
    expect((await tokeniseFile(path, { ...options, maxLength: 65 })).fromCache).toBe(false);
    for (const name of readdirSync(options.cacheDirectory)) truncateSync(join(options.cacheDirectory, name), 500);
    const third = await tokeniseFile(path, options);
    expect(third.fromCache).toBe(false);
    expect(third.dataset.example(7)).toEqual(first.dataset.example(7));
  });
});

describe('fitLength', () => {
  it('keeps the answer and what stands next to it', () => {
    const inputIds = Int32Array.from([256, 1, 2, 3, 4, 5, 6, 7]);
    const labels = Int32Array.from([-100, -100, -100, -100, -100, 5, 6, -100]);
    expect(fitLength({ inputIds, labels }, { maxLength: 5, policy: 'truncate-context', bos: 256, row: 1 })).toEqual({ inputIds: Int32Array.from([256, 3, 4, 5, 6]), labels: Int32Array.from([-100, -100, -100, 5, 6]) });
  });

  it('always fits and always keeps something to learn', () => {
    const example = fc.record({ before: fc.nat(40), answer: fc.integer({ min: 1, max: 40 }), after: fc.nat(3), maxLength: fc.integer({ min: 8, max: 40 }) });
    fc.assert(
      fc.property(example, ({ before, answer, after, maxLength }) => {
        const inputIds = Int32Array.from({ length: before + answer + after }, (_, index) => index);
        const labels = inputIds.map((id) => (id >= before && id < before + answer ? id : IGNORED_LABEL));
        const fitted = fitLength({ inputIds, labels }, { maxLength, policy: 'truncate-context', bos: 0, row: 1 });
        expect(fitted.inputIds.length).toBeLessThanOrEqual(maxLength);
        expect(fitted.labels.some((label) => label !== IGNORED_LABEL)).toBe(true);
        for (const [index, label] of fitted.labels.entries()) if (label !== IGNORED_LABEL) expect(label).toBe(fitted.inputIds[index]);
      }),
    );
  });
});

describe('epochOrder', () => {
  it('is a permutation that depends on seed and epoch only', () => {
    expect([...epochOrder(50, 1, 0)].sort((a, b) => a - b)).toEqual([...Array(50).keys()]);
    expect(epochOrder(50, 1, 2)).toEqual(epochOrder(50, 1, 2));
    expect(epochOrder(50, 1, 2)).not.toEqual(epochOrder(50, 1, 3));
    expect(epochOrder(50, 1, 2)).not.toEqual(epochOrder(50, 2, 2));
  });
});

describe('SpamAssassin examples', () => {
  it('reads subject and body out of encoded, multi-part mail', () => {
    const raw = 'From: a@b.c\nSubject: [list] =?iso-8859-1?Q?Hello_there?=\nContent-Type: multipart/alternative;\n\tboundary="X"\n\n--X\nContent-Type: text/html\n\n<p>no</p>\n--X\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\nWrite to me@x.org or see http://x.org/a=\nb now\n-- \nsignature\n--X--';
    expect(readMail(raw)).toEqual({ subject: 'Hello there', body: 'Write to ADDRESS or see LINK now' });
  });

  it('groups texts that differ in a few words', () => {
    const text = 'win a free holiday today just call this number now and tell us your name before the offer ends at midnight';
    expect([...nearDuplicateGroups([text, 'minutes of the meeting about the new compiler release', text.replace('midnight', 'noon 2002'), ''])]).toEqual([0, 1, 0, 3]);
  });

  it('is balanced, deterministic, from all groups, and shares no text between the parts', () => {
    const { train, test } = spamAssassinExamples();
    expect([train.length, test.length]).toEqual([600, 400]);
    for (const part of [train, test]) expect(part.filter(({ label }) => label === 'spam')).toHaveLength(part.length / 2);
    expect(new Set([...train, ...test].map(({ group }) => group)).size).toBe(5);
    const groups = nearDuplicateGroups([...train, ...test].map(({ messages }) => messages[1].content));
    expect([...groups].filter((first, index) => first !== index)).toEqual([]);
    // Results people compare across versions rest on these very mails; a change here needs a note in the changelog.
    expect(sha256Hex(toJsonl(train))).toBe('3516c08757b929b457df105974114852d46481d8e25338d61b92d245889f3fcd');
  }, 60_000);
});

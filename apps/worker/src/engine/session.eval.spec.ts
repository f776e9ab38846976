/** Eval jobs as the agent sees them: messages in, messages and folders out, on a tiny random model. */
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { evalItemSchema, evalResultSchema, type ArtifactRef, type EvalItem, type EvalSpec } from '@tunefleet/contracts';
import { createTuner, parseTunerSpec } from '@tunefleet/ml-tuners';
import { SessionHarness, type Answer } from './testing/session-harness';

jest.setTimeout(60_000);

const LABELS = ['ham', 'spam'];
const rowsOf = (count: number): object[] =>
  Array.from({ length: count }, (_, index) => ({
    messages: [
      { role: 'system', content: 'Is this spam or ham?' },
      { role: 'user', content: `mail number ${index}: ${'win the ring '.repeat(index % 3)}` },
      { role: 'assistant', content: LABELS[index % 2] },
    ],
  }));

let harness: SessionHarness;
let adapter: ArtifactRef[];
beforeAll(async () => {
  harness = await SessionHarness.open();
  adapter = await randomAdapter();
});
afterAll(() => harness.close());
beforeEach(() => (harness.onMessage = () => undefined));

async function randomAdapter(): Promise<ArtifactRef[]> {
  const base = await harness.base();
  using opened = await harness.engine.openModel(base, 'f32');
  const { model } = opened;
  const tuner = createTuner(parseTunerSpec({ kind: 'lora', r: 4, target_modules: 'all-linear' }), model);
  const values = Float32Array.from({ length: tuner.parameterCount }, (_, index) => Math.sin(index * 7.3));
  const dir = join(harness.folder, 'adapter');
  mkdirSync(dir);
  await tuner.save(values, dir, base);
  return harness.inputFolder(dir);
}

async function evalSpec(rows: readonly object[], changes: Partial<EvalSpec> = {}): Promise<EvalSpec> {
  const file = harness.input('rows.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'));
  return {
    base: await harness.base(),
    candidates: [{ model: 'tiny' }, { model: 'tiny:tuned', adapter }],
    file,
    metric: { type: 'label_likelihood', labels: LABELS, normalise: 'none' },
    samples: 0,
    maxSequenceLength: 256,
    computeDtype: 'f32',
    ...changes,
  };
}

function itemsOf(answer: Answer): EvalItem[] {
  if (answer.type !== 'succeeded') throw new Error(JSON.stringify(answer));
  return readFileSync(join(answer.dir, 'items.jsonl'), 'utf8').trim().split('\n').map((line) => evalItemSchema.parse(JSON.parse(line)));
}

test('scores base and adapter on the same rows and reports on the way', async () => {
  const run = harness.run('eval', await evalSpec(rowsOf(36), { samples: 2 }));
  const answer = await run;
  const items = itemsOf(answer);
  expect(items.map(({ row }) => row)).toEqual(Array.from({ length: 36 }, (_, index) => index + 1));
  const result = evalResultSchema.parse((answer as Extract<Answer, { type: 'succeeded' }>).result);
  result.candidates.forEach((candidate, index) => {
    const outputs = items.map(({ outputs: each }) => each[index]);
    expect(candidate).toMatchObject({ model: ['tiny', 'tiny:tuned'][index], n: 36, correct: outputs.filter((output) => output?.correct).length });
    for (const [row, output] of outputs.entries()) {
      const [ham = 0, spam = 0] = output?.scores ?? [];
      expect(ham).not.toBe(spam);
      expect(output?.prediction).toBe(ham > spam ? 'ham' : 'spam');
      expect(output?.correct).toBe(output?.prediction === items[row]?.reference);
      expect(typeof output?.sample).toBe(row < 2 ? 'string' : 'undefined');
    }
  });
  expect(result.comparison).not.toBeNull();
  expect(items.some(({ outputs: [base, tuned] }) => base?.scores?.[0] !== tuned?.scores?.[0])).toBe(true);
  expect(harness.of('progress', run.runId).at(-1)).toMatchObject({ step: 36, totalSteps: 36, phase: 'score' });
  expect(harness.of('metrics', run.runId).map(({ step }) => step)).toEqual([32, 36]);
  expect(harness.of('metrics', run.runId).at(-1)?.values).toEqual({ accuracy: result.candidates[0]?.accuracy, accuracy_2: result.candidates[1]?.accuracy });
  expect(readdirSync(run.outputDir)).toEqual(['result']);
});

test('equal jobs give equal files; a limit takes the first rows', async () => {
  const spec = await evalSpec(rowsOf(6), { limit: 4 });
  const [first, second] = [itemsOf(await harness.run('eval', spec)), itemsOf(await harness.run('eval', spec))];
  expect(first).toHaveLength(4);
  expect(second).toEqual(first);
});

test('on a base in 4 bits the same adapter scores as it did where it was trained on one', async () => {
  const spec = await evalSpec(rowsOf(4));
  const [float, nf4, fp4] = [
    itemsOf(await harness.run('eval', spec)),
    itemsOf(await harness.run('eval', { ...spec, baseQuantisation: { type: 'nf4', doubleQuant: true } })),
    itemsOf(await harness.run('eval', { ...spec, baseQuantisation: { type: 'fp4', doubleQuant: false } })),
  ];
  const scores = (items: readonly EvalItem[]) => items.flatMap(({ outputs }) => outputs.flatMap(({ scores: each = [] }) => each));
  const distance = (items: readonly EvalItem[]) => Math.max(...scores(items).map((score, i) => Math.abs(score - (scores(float)[i] ?? NaN))));
  expect(distance(nf4)).toBeGreaterThan(1e-3);
  expect(distance(fp4)).not.toBe(distance(nf4));
  expect(itemsOf(await harness.run('eval', spec))).toEqual(float);
});

test('exact match judges the greedy text', async () => {
  const metric = { type: 'exact_match', max_tokens: 6, ignore_case: false } as const;
  const run = async (rows: readonly object[]): Promise<Answer> => harness.run('eval', await evalSpec(rows, { metric, candidates: [{ model: 'tiny' }] }));
  const said = itemsOf(await run(rowsOf(10))).map(({ outputs }) => outputs[0]?.prediction ?? '');
  // A random model may answer with white space, which no row can have as its reference.
  const answered = rowsOf(10).flatMap((row, index) => (said[index]?.trim() ? [withAnswer(row, said[index])] : []));
  expect(answered.length).toBeGreaterThan(1);
  expect(await run([...answered, withAnswer(rowsOf(1)[0] as object, 'no such thing')])).toMatchObject({
    type: 'succeeded',
    result: { metric: 'exact_match', candidates: [{ n: answered.length + 1, correct: answered.length }], comparison: null },
  });
});

function withAnswer(row: object, content: string): object {
  return { messages: (row as { messages: object[] }).messages.with(-1, { role: 'assistant', content }) };
}

test('stops between rows and leaves no result', async () => {
  const spec = await evalSpec(rowsOf(200));
  harness.onMessage = (message) => {
    if (message.type === 'progress' && message.step > 0) harness.session.receive({ type: 'stop', runId: message.runId, checkpoint: false });
  };
  const run = harness.run('eval', spec);
  expect(await run).toEqual({ type: 'stopped', runId: run.runId });
  expect(existsSync(join(run.outputDir, 'result'))).toBe(false);
  expect(harness.of('metrics', run.runId)).toEqual([]);
  expect(harness.session.busy).toBe(false);
});

test('two jobs at once answer as one after the other', async () => {
  const spec = await evalSpec(rowsOf(4));
  const both = [harness.run('eval', spec), harness.run('eval', spec)];
  expect(harness.session.busy).toBe(true);
  const answers = await Promise.all(both);
  const alone = itemsOf(await harness.run('eval', spec));
  for (const answer of answers) expect(itemsOf(answer)).toEqual(alone);
  expect(harness.session.busy).toBe(false);
});

test('frees one model before it loads another, and keeps the last', async () => {
  const { device } = harness.engine;
  const spec = await evalSpec(rowsOf(1), { candidates: [{ model: 'tiny' }] });
  await harness.run('eval', { ...spec, base: await harness.base('other-model') });
  const bytes = device.memory.liveBytes;
  const run = harness.run('eval', spec);
  await run;
  expect(harness.of('model', run.runId).at(-1)?.inMemory).toBe(`${spec.base.id}@${spec.base.revision}`);
  expect(device.memory.liveBytes).toBe(bytes);
  const again = harness.run('eval', spec);
  await again;
  expect(harness.of('log', again.runId).map(({ message }) => message)).toContainEqual(expect.stringContaining('already in memory'));
});

test('beside a job another model is not opened, nor the same in another precision; the job goes to another worker', async () => {
  const [spec, other] = [await evalSpec(rowsOf(40)), await harness.base('other-model')];
  const first = harness.run('eval', spec);
  await new Promise<void>((resolve) => (harness.onMessage = (message) => void (message.type === 'progress' && message.phase === 'score' && resolve())));
  for (const change of [{ base: other }, { baseQuantisation: { type: 'nf4', doubleQuant: true } }]) {
    const refused = await harness.run('eval', { ...spec, ...change });
    expect(refused).toMatchObject({ type: 'failed', failure: { class: 'infrastructure', code: 'other_model_in_use', message: expect.stringContaining('for 1 other run') as string } });
  }
  expect(itemsOf(await first)).toHaveLength(40);
  expect((await harness.run('eval', { ...spec, base: other, candidates: [{ model: 'tiny' }] })).type).toBe('succeeded');
});

const badRows: [string, object | string, RegExp, string][] = [
  ['a bad row', '{"messages": []}', /row 3, /, 'invalid_file'],
  ['a row whose answer is no label', { messages: [{ role: 'user', content: 'a' }, { role: 'assistant', content: 'eggs' }] }, /row 3: the answer is "eggs".*"ham", "spam"/, 'answer_not_a_label'],
  ['a row that is too long', { messages: [{ role: 'user', content: 'x'.repeat(300) }, { role: 'assistant', content: 'ham' }] }, /row 3 has \d+ tokens, more than the maximum sequence length 256/, 'row_too_long'],
];
test.each(badRows)('%s fails the job with its number', async (_, row, message, code) => {
  const file = harness.input('bad.jsonl', [...rowsOf(2), row].map((each) => (typeof each === 'string' ? each : JSON.stringify(each))).join('\n'));
  const answer = await harness.run('eval', await evalSpec([], { file }));
  expect(answer).toMatchObject({ type: 'failed', failure: { class: 'user', code, param: 'file', message: expect.stringMatching(message) as string } });
});

test('refuses what it cannot run, each with its own code', async () => {
  const spec = await evalSpec(rowsOf(1));
  const failure = async (kind: string, change: object, options = {}): Promise<unknown> => {
    const answer = await harness.run(kind, { ...spec, ...change }, options);
    return answer.type === 'failed' ? answer.failure : answer;
  };
  expect(await failure('eval', { maxSequenceLength: 'long' })).toMatchObject({ class: 'user', code: 'invalid_spec', param: 'maxSequenceLength' });
  expect(await failure('eval', { base: { id: '/no/such/folder', revision: 'local-0' } })).toMatchObject({ class: 'user' });
  expect(await failure('eval', { base: { id: spec.base.id, revision: 'local-0' } })).toMatchObject({ class: 'user', code: 'revision_not_found' });
  expect(await failure('translate', {})).toMatchObject({ class: 'infrastructure', code: 'job_not_supported', message: expect.stringContaining('"translate"') as string });
  expect(await failure('eval', {}, { schemaVersion: 3 })).toMatchObject({ class: 'infrastructure', code: 'job_not_supported' });
});

test('ignores what it does not understand and exits when told to', () => {
  const before = harness.sent.length;
  harness.session.receive({ type: 'nonsense' });
  harness.session.receive({ type: 'stop', runId: 'another', checkpoint: true });
  expect(harness.sent).toHaveLength(before);
  harness.session.receive({ type: 'exit' });
  expect(harness.exited).toBe(1);
});

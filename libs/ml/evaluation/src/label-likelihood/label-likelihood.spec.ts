/** Scores against log-probabilities computed directly from the plain forward pass, and against the tokens that training learns. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseRow, type DatasetRow } from '@tunefleet/domain-datasets';
import { IGNORED_LABEL, tokeniseRow } from '@tunefleet/ml-data';
import { PrefixCache, sequenceLogits } from '@tunefleet/ml-generation';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { writeTinyModel } from '@tunefleet/testing';
import { labelSequences } from './label-sequences';
import { scoreLabels } from './score-labels';

const LABELS = ['spam', 'ham', 'sp', 'span of a bridge'];
let folder: string;
let model: CausalLm;
let tokenizer: TextTokenizer;

beforeAll(async () => {
  folder = await writeTinyModel(mkdtempSync(join(tmpdir(), 'evaluation-')));
  const config: unknown = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  model = await loadCausalLm(await openDevice({ backend: 'auto' }), { folder, config, computeDtype: 'f32' });
  tokenizer = await TextTokenizer.load(folder);
});
afterAll(() => {
  model[Symbol.dispose]();
  rmSync(folder, { recursive: true });
});

function row(value: object): DatasetRow {
  const parsed = parseRow(JSON.stringify(value), 1);
  if (!parsed.ok) throw new Error(parsed.problems[0]?.message);
  return parsed.row;
}

const chat = (answer: string, question = 'is this one spam?'): DatasetRow =>
  row({
    messages: [
      { role: 'user', content: 'first' },
      { role: 'assistant', content: 'second' },
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    ],
  });
const completion = (answer: string): DatasetRow => row({ prompt: 'one of spam or ham:', completion: answer });

/** Minus the summed loss that training would take on the row's last answer. */
function directScore(answered: DatasetRow): number {
  const { inputIds, labels } = tokeniseRow(tokenizer, answered, 1);
  const logits = sequenceLogits(model, inputIds);
  const answerStart = labels.findLastIndex((label, index) => label !== IGNORED_LABEL && labels[index - 1] === IGNORED_LABEL);
  let score = 0;
  for (let position = answerStart; position < labels.length; position++) {
    const label = labels[position] as number;
    if (label === IGNORED_LABEL) continue;
    const expected = logits.subarray((position - 1) * model.vocabSize, position * model.vocabSize);
    score += (expected[label] as number) - Math.log(expected.reduce((sum, value) => sum + Math.exp(value), 0));
  }
  return score;
}

test.each([
  ['chat', chat],
  ['completion', completion],
])('%s rows: scores are minus the training loss of each label', (_, make) => {
  using cache = new PrefixCache(model);
  const scores = scoreLabels(cache, labelSequences(tokenizer, make('spam'), LABELS));
  LABELS.forEach((label, index) => expect(scores[index]).toBeCloseTo(directScore(make(label)), 3));
});

test('the order of labels and what the cache held change nothing', () => {
  using cache = new PrefixCache(model);
  const sequences = labelSequences(tokenizer, chat('spam'), LABELS);
  const first = scoreLabels(cache, sequences);
  scoreLabels(cache, labelSequences(tokenizer, chat('ham', 'another question'), LABELS));
  const reversed = scoreLabels(cache, [...sequences].reverse()).reverse();
  reversed.forEach((score, index) => expect(score).toBeCloseTo(first[index] as number, 4));
});

test('labels share the prompt: beyond it only the tokens in which they differ are fed', () => {
  using cache = new PrefixCache(model);
  const sequences = labelSequences(tokenizer, chat('spam'), ['spam', 'ham']);
  scoreLabels(cache, sequences);
  const [spam, ham] = sequences as [(typeof sequences)[0], (typeof sequences)[0]];
  expect(spam.answerStart).toBe(ham.answerStart);
  const answerTokens = spam.ids.length - spam.answerStart + (ham.ids.length - ham.answerStart);
  expect(cache.tokensFed).toBe(spam.answerStart + answerTokens - 2);
});

test('labels with the same tokens are refused', () => {
  expect(() => labelSequences(tokenizer, chat('spam'), ['spam', 'ham', 'spam'])).toThrow('labels "spam" and "spam" are the same tokens');
});

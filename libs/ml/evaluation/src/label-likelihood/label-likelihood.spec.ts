/** Scores against log-probabilities computed directly from the plain forward pass, and against the tokens that training learns. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseRow, type DatasetRow } from '@tunefleet/domain-datasets';
import { IGNORED_LABEL, tokeniseRow } from '@tunefleet/ml-data';
import { sequenceLogits } from '@tunefleet/ml-generation';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { writeTinyModel } from '@tunefleet/testing';
import { LabelScorer } from './label-scorer';
import { labelSequences } from './label-sequences';
import { columnsOf, labelTree, planBatches, sharedPrefix, type LabelTree } from './label-tree';

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

const treeOf = (one: DatasetRow, labels = LABELS): LabelTree => labelTree(labelSequences(tokenizer, one, labels));

function scoresOf(trees: readonly LabelTree[], prefix = sharedPrefix(trees)): number[][] {
  using scorer = new LabelScorer(model, null, prefix);
  return scorer.score(trees);
}

test.each([
  ['chat', (answer: string) => chat(answer)],
  ['completion', completion],
])('%s rows: scores are minus the training loss of each label', (_, make) => {
  const [scores] = scoresOf([treeOf(make('spam'))]);
  LABELS.forEach((label, index) => expect(scores?.[index]).toBeCloseTo(directScore(make(label)), 3));
});

test('rows of different lengths score the same together and alone, with and without a shared prefix', () => {
  const trees = ['short?', 'is this one spam?', 'a much longer question about the ham in the pan', 'x'].map((question) => treeOf(chat('spam', question)));
  expect(sharedPrefix(trees).length).toBeGreaterThan(10);
  const together = scoresOf(trees);
  const bare = scoresOf(trees, new Int32Array(0));
  trees.forEach((tree, row) => {
    const [alone] = scoresOf([tree]);
    together[row]?.forEach((score, label) => {
      expect(score).toBeCloseTo(alone?.[label] as number, 3);
      expect(bare[row]?.[label]).toBeCloseTo(score, 3);
    });
  });
});

test('one scorer gives the same bits again, feeds the prefix once and leaves nothing on the device', () => {
  const trees = ['one', 'two'].map((question) => treeOf(chat('ham', question), ['spam', 'ham']));
  const prefix = sharedPrefix(trees);
  const before = model.device.memory.liveHandles - model.device.cachedScalars;
  {
    using scorer = new LabelScorer(model, null, prefix);
    const first = scorer.score(trees);
    const columns = trees.reduce((total, tree) => total + columnsOf(tree, prefix.length), 0);
    expect(scorer.tokensFed).toBe(2 * prefix.length + columns);
    expect(scorer.score(trees)).toEqual(first);
    expect(scorer.tokensFed).toBe(2 * prefix.length + 2 * columns);
  }
  expect(model.device.memory.liveHandles - model.device.cachedScalars).toBe(before);
});

test('batches hold every row once, in powers of two, within the limit', () => {
  const trees = Array.from({ length: 21 }, (_, index) => treeOf(chat('spam', 'x'.repeat(1 + ((index * 13) % 40)))));
  const prefix = sharedPrefix(trees).length;
  const groups = planBatches(trees, prefix, 400);
  expect(groups.flat().sort((a, b) => a - b)).toEqual([...trees.keys()]);
  for (const group of groups) {
    expect(Number.isInteger(Math.log2(group.length))).toBe(true);
    expect(group.length * Math.max(...group.map((index) => columnsOf(trees[index] as LabelTree, prefix)))).toBeLessThanOrEqual(400);
  }
  expect(groups.length).toBeLessThan(10);
  expect(planBatches(trees, prefix, 1)).toHaveLength(21);
});

test('labels with the same tokens are refused', () => {
  expect(() => labelSequences(tokenizer, chat('spam'), ['spam', 'ham', 'spam'])).toThrow('labels "spam" and "spam" are the same tokens');
});

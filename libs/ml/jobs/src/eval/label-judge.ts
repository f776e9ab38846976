import type { EvalMetric } from '@tunefleet/contracts';
import { LabelScorer, labelSequences, labelTree, planBatches, promptOf, sharedPrefix, type LabelTree } from '@tunefleet/ml-evaluation';
import type { Candidate } from './candidates';
import { checkLength, type Judge, type JudgeOptions, type PreparedRow, type Verdict } from './judge';
import { badRow, type EvalRow } from './read-rows';

type LabelMetric = Extract<EvalMetric, { type: 'label_likelihood' }>;

export interface LabelRow extends PreparedRow {
  readonly tree: LabelTree;
  /** Tokens of each label, the one that ends the turn among them. */
  readonly labelTokens: readonly number[];
  /** Index of the right label. */
  readonly wanted: number;
}

/** Tokens of one forward pass: enough to use the device fully, few enough to stop soon. */
const BATCH_TOKENS = 1024;

/** The label with the highest log-likelihood as the next assistant turn must be the reference. */
export class LabelJudge implements Judge<LabelRow> {
  readonly #scorers = new Map<Candidate, LabelScorer>();
  readonly #trees: LabelTree[] = [];
  #prefix: Int32Array | null = null;

  constructor(
    private readonly metric: LabelMetric,
    private readonly options: JudgeOptions,
  ) {}

  /** All rows must be prepared before the first is judged: what they share is found then. */
  prepare(row: EvalRow): LabelRow {
    const { labels } = this.metric;
    const wanted = labels.findIndex((label) => label.trim() === row.reference.trim());
    if (wanted < 0) {
      throw badRow(`row ${row.number}: the answer is ${JSON.stringify(row.reference.slice(0, 80))}, which is none of the labels ${labels.map((label) => JSON.stringify(label)).join(', ')}; correct the row or add the label`, { row: row.number }, 'answer_not_a_label');
    }
    const sequences = labelSequences(this.options.tokenizer, row.row, labels);
    checkLength(row, Math.max(...sequences.map(({ ids }) => ids.length)), this.options.maxLength);
    const tree = labelTree(sequences);
    this.#trees.push(tree);
    return {
      ...row,
      wanted,
      tree,
      labelTokens: sequences.map(({ ids, answerStart }) => ids.length - answerStart),
      prompt: promptOf(this.options.tokenizer, row.row),
      tokens: tree.labels.reduce((total, { tokens }) => total + tokens.length, 2 * tree.trunk.length),
    };
  }

  plan(rows: readonly LabelRow[]): number[][] {
    return planBatches(rows.map(({ tree }) => tree), this.#sharedPrefix.length, BATCH_TOKENS);
  }

  judge(candidate: Candidate, rows: readonly LabelRow[]): Promise<Verdict[]> {
    const scores = this.#scorerOf(candidate).score(rows.map(({ tree }) => tree));
    return Promise.resolve(rows.map((row, index) => this.#verdict(row, scores[index] as number[])));
  }

  get tokensFed(): number {
    return [...this.#scorers.values()].reduce((total, { tokensFed }) => total + tokensFed, 0);
  }

  [Symbol.dispose](): void {
    for (const scorer of this.#scorers.values()) scorer[Symbol.dispose]();
    this.#scorers.clear();
  }

  get #sharedPrefix(): Int32Array {
    return (this.#prefix ??= sharedPrefix(this.#trees));
  }

  #scorerOf(candidate: Candidate): LabelScorer {
    const known = this.#scorers.get(candidate);
    if (known !== undefined) return known;
    const scorer = new LabelScorer(candidate.generator.model, candidate.adapter, this.#sharedPrefix);
    this.#scorers.set(candidate, scorer);
    return scorer;
  }

  #verdict({ wanted, labelTokens }: LabelRow, scores: number[]): Verdict {
    const compared = this.metric.normalise === 'none' ? scores : scores.map((score, label) => score / (labelTokens[label] as number));
    const best = compared.indexOf(Math.max(...compared));
    return { prediction: this.metric.labels[best] as string, correct: best === wanted, scores };
  }
}

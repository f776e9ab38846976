import { invariant } from '@tunefleet/foundation';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headRowObjective, type JudgedRows } from '@tunefleet/ml-tensor';
import { planPass } from './batch-plan';
import { collate, labelled, type TrainingBatch } from './collate';
import { examplesOf, groupLengths, type Objective, type ObjectivePass, type PassLoss } from './objective';
import { pairsPerTokenOf } from './pairs-per-token';

/** Example 2i is the preferred answer of pair i, 2i + 1 the other one. */
const PAIR = 2;

/**
 * Direct preference optimisation, the sigmoid form without label smoothing, as TRL's `loss_type="sigmoid"`: the mean over pairs of
 * -log σ(z), z = β ((log π(chosen) - log ref(chosen)) - (log π(rejected) - log ref(rejected))), with log-probabilities summed over the answer's tokens.
 * A row's cross entropy l is -log p of one token, so with s = σ(-z): d loss / dl is β s for the tokens of the chosen answer and -β s for those of the rejected one.
 * @see Rafailov et al. 2023, arXiv:2305.18290, equation 7
 */
export class PreferenceObjective implements Objective {
  readonly groupSize = PAIR;

  /** @param references by dataset [examples] what `referenceLogProbs` gave */
  constructor(
    private readonly beta: number,
    private readonly references: ReadonlyMap<TokenisedDataset, Float32Array>,
  ) {}

  unitsOf({ examples }: TrainingBatch): number {
    return examples.length / PAIR;
  }

  loss({ hidden, head, labels, batch, dataset, scale }: ObjectivePass): PassLoss {
    const reference = this.references.get(dataset);
    invariant(reference?.length === dataset.length, 'a reference log-probability for every example');
    const sums = { 'rewards/chosen': 0, 'rewards/rejected': 0, 'rewards/accuracies': 0, 'rewards/margins': 0 };
    const judge = (losses: Float32Array): JudgedRows => {
      const logProbs = sumByExample(batch, losses);
      const slopeOf = new Map<number, number>();
      let value = 0;
      for (const chosen of batch.examples) {
        if (chosen % PAIR !== 0) continue;
        const rejected = chosen + 1;
        const [up, down] = [chosen, rejected].map((example) => this.beta * ((logProbs.get(example) ?? NaN) - (reference[example] as number))) as [number, number];
        const z = up - down;
        value += softplus(-z);
        const slope = (this.beta * scale) / (1 + Math.exp(z));
        slopeOf.set(chosen, slope).set(rejected, -slope);
        sums['rewards/chosen'] += up;
        sums['rewards/rejected'] += down;
        sums['rewards/accuracies'] += up > down ? 1 : 0;
        sums['rewards/margins'] += z;
      }
      return { value: value * scale, slopes: Float32Array.from(eachRow(batch), (example) => slopeOf.get(example) ?? NaN) };
    };
    return { loss: headRowObjective(hidden, head, labels, judge), correct: null, sums };
  }
}

export interface ReferenceOptions {
  readonly model: CausalLm;
  /** The reference policy; null: the base model. */
  readonly adapter: ModelHook | null;
  readonly dataset: TokenisedDataset;
  /** Room of a pass, in rows of the longest pair. */
  readonly microBatchSize: number;
}

/**
 * Log-probability of every answer under the policy that training is held to.
 * @returns [examples], or null when `shouldStop` said so
 */
export async function referenceLogProbs({ model, adapter, dataset, microBatchSize }: ReferenceOptions, shouldStop: () => Promise<boolean> | boolean = () => false): Promise<Float32Array | null> {
  const reference = new Float32Array(dataset.length);
  for (const pairs of planPass(groupLengths(dataset.lengths, PAIR), microBatchSize)) {
    if (await shouldStop()) return null;
    const batch = collate(dataset, examplesOf(pairs, PAIR), pairsPerTokenOf(model), PAIR);
    const { rows, labels } = labelled(batch.labels);
    model.device.scope(() => {
      const hidden = model.forward(batch.tokens, { adapter, outputRows: rows });
      headRowObjective(hidden, headOf(model, adapter), labels, (losses) => {
        for (const [example, logProb] of sumByExample(batch, losses)) reference[example] = logProb;
        return { value: 0, slopes: losses };
      });
    });
  }
  return reference;
}

/** @param losses [rows] cross entropies    @returns by example the sum of its tokens' log-probabilities */
function sumByExample(batch: TrainingBatch, losses: Float32Array): Map<number, number> {
  const sums = new Map<number, number>();
  let row = 0;
  for (const example of eachRow(batch)) sums.set(example, (sums.get(example) ?? 0) - (losses[row++] as number));
  return sums;
}

/** The example of every row that carries loss. */
function* eachRow({ examples, lossTokensOf }: TrainingBatch): Generator<number> {
  for (const [index, example] of examples.entries()) for (let count = lossTokensOf[index] as number; count > 0; count--) yield example;
}

/** log(1 + e^x), also for large x. */
function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

import type { DpoHyperparameters, FineTuneRequest } from '@tunefleet/contracts';

/** Every `auto` settled. Names are the API's. */
export type SettledHyperparameters = DpoHyperparameters & {
  readonly n_epochs: number;
  readonly batch_size: number;
  readonly learning_rate: number;
  readonly learning_rate_multiplier: number;
};

const EPOCHS = 3;
/** Small sets are passed more often, until this many examples were seen, but not more than `EPOCHS_MAX` times. */
const EXAMPLES_SEEN_MIN = 100;
/** Large ones less often, once so many are seen. */
const EXAMPLES_SEEN_MAX = 25_000;
const EPOCHS_MAX = 25;
/** Larger sets bear larger batches: this share of the examples, within bounds. */
const BATCH_SHARE = 0.002;
const BATCH_MIN = 8;
const BATCH_MAX = 64;
/** Preferences are learned with a tenth of the rate: pushing two answers apart has no minimum to settle in. */
const DPO_RATE_SHARE = 0.1;
const BETA = 0.1;
/** Of the API's own schema. */
const LEARNING_RATE_MAX = 1;

/**
 * Defaults after OpenAI's: epochs as its cookbook counts them (openai/openai-cookbook `examples/Chat_finetuning_data_prep.ipynb`), batch size
 * 0.2 % of the examples as its guide says, though at least 8: one example a step trains no better and much slower here.
 * Plain text is read once.
 * @param tunerRate the tuner's own, which the multiplier multiplies; a tenth of it for `dpo`
 */
export function settleHyperparameters(given: DpoHyperparameters, examples: number, tunerRate: number, method: FineTuneRequest['method'] = undefined): SettledHyperparameters {
  const learningRateDefault = method === 'dpo' ? tunerRate * DPO_RATE_SHARE : tunerRate;
  const rate = settled(given.learning_rate) ?? Math.min(LEARNING_RATE_MAX, learningRateDefault * (settled(given.learning_rate_multiplier) ?? 1));
  return {
    ...given,
    n_epochs: settled(given.n_epochs) ?? (method === 'pretraining' ? 1 : epochsFor(examples)),
    batch_size: settled(given.batch_size) ?? Math.max(given.micro_batch_size ?? 1, batchSizeFor(examples)),
    learning_rate: rate,
    learning_rate_multiplier: rate / learningRateDefault,
    ...(method === 'dpo' ? { beta: settled(given.beta) ?? BETA } : {}),
  };
}

export function stepsOf({ n_epochs: epochs, batch_size: batchSize }: Pick<SettledHyperparameters, 'n_epochs' | 'batch_size'>, examples: number): number {
  return epochs * Math.ceil(examples / batchSize);
}

function epochsFor(examples: number): number {
  if (examples * EPOCHS < EXAMPLES_SEEN_MIN) return Math.min(EPOCHS_MAX, Math.ceil(EXAMPLES_SEEN_MIN / examples));
  if (examples * EPOCHS > EXAMPLES_SEEN_MAX) return Math.max(1, Math.floor(EXAMPLES_SEEN_MAX / examples));
  return EPOCHS;
}

function batchSizeFor(examples: number): number {
  return Math.min(examples, Math.max(BATCH_MIN, Math.min(BATCH_MAX, Math.round(examples * BATCH_SHARE))));
}

function settled(value: number | 'auto' | undefined): number | undefined {
  return value === 'auto' ? undefined : value;
}

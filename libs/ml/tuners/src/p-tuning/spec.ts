import { z } from 'zod';
import type { TunerSpecHalf } from '../tuner-spec';
import { numVirtualTokens, parsePromptFields } from '../virtual-tokens/fields';

/** P-tuning's fields, spelled and defaulted as in PEFT, but for the number of tokens, which has no default there. @see Liu et al. 2021, arXiv:2103.10385 */
export const pTuningSpecSchema = z.strictObject({
  kind: z.literal('p-tuning'),
  num_virtual_tokens: numVirtualTokens,
  encoder_reparameterization_type: z.literal('MLP', { error: 'must be "MLP": an LSTM cannot be trained here; adapters that were trained with one can be loaded' }).default('MLP'),
  /** Width inside the MLP; null: that of the model. */
  encoder_hidden_size: z.int().min(1).max(65_536).nullish().transform((value) => value ?? null),
  encoder_num_layers: z.literal(2, { error: 'must be 2: the MLP has two hidden layers, whatever this says, in PEFT too' }).default(2),
  encoder_dropout: z.literal(0, { error: 'must be 0: the MLP has no dropout, whatever this says, in PEFT too' }).default(0),
});
export type PTuningSpec = z.infer<typeof pTuningSpecSchema>;

export const pTuningSpec: TunerSpecHalf<PTuningSpec> = {
  title: 'P-tuning',
  summary: 'embeddings of virtual tokens, made by an MLP while it trains; steadier than prompt tuning',
  // As in PEFT's example of p-tuning.
  learningRate: 1e-3,
  shapeKey: ({ num_virtual_tokens: n, encoder_hidden_size: width }) => `p-tuning-${n}-mlp${width ?? ''}`,
  freeFields: [],
  parse: (fields) => parsePromptFields(pTuningSpecSchema, fields, 'p-tuning'),
  virtualTokens: ({ num_virtual_tokens: n }) => n,
  countParameters({ num_virtual_tokens: n, encoder_hidden_size }, { hiddenSize: C }) {
    const hidden = encoder_hidden_size ?? C;
    return n * C + hidden * (C + 1) + hidden * (hidden + 1) + C * (hidden + 1);
  },
};

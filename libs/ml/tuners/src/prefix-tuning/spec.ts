import { z } from 'zod';
import { badField } from '../spec-refusal';
import type { TunerSpecHalf } from '../tuner-spec';
import { numVirtualTokens, parsePromptFields } from '../virtual-tokens/fields';
import { keyValuePlace } from '../virtual-tokens/place';

/** Prefix tuning's fields, spelled and defaulted as in PEFT, but for the number of tokens, which has no default there. @see Li and Liang 2021, arXiv:2101.00190 */
export const prefixTuningSpecSchema = z.strictObject({
  kind: z.literal('prefix-tuning'),
  num_virtual_tokens: numVirtualTokens,
  /** Train embeddings and an MLP that makes the table of them. Only the table is saved. */
  prefix_projection: z.boolean().default(false),
  /** Width inside the MLP; null: that of a token's keys. */
  encoder_hidden_size: z.int().min(1).max(65_536).nullish().transform((value) => value ?? null),
  /** null: random; zero: keys and values of zero, which still take part of the attention. */
  init_weights: z.literal('zero', { error: 'must be "zero" or null' }).nullish().transform((value) => value ?? null),
});
export type PrefixTuningSpec = z.infer<typeof prefixTuningSpecSchema>;

export const prefixTuningSpec: TunerSpecHalf<PrefixTuningSpec> = {
  title: 'Prefix tuning',
  summary: 'keys and values of virtual tokens in every layer; more room than prompt tuning at the same number of tokens',
  // As in PEFT's example of prefix tuning.
  learningRate: 1e-2,
  shapeKey: ({ num_virtual_tokens: n, prefix_projection, encoder_hidden_size: width }) => `prefix-tuning-${n}${prefix_projection ? `-mlp${width ?? ''}` : ''}`,
  // What was saved is the table: it can be trained further, however it was made.
  freeFields: ['init_weights', 'prefix_projection', 'encoder_hidden_size'],
  parse(fields) {
    const spec = parsePromptFields(prefixTuningSpecSchema, fields, 'prefix tuning');
    if (spec.encoder_hidden_size !== null && !spec.prefix_projection) throw badField('encoder_hidden_size', 'is the width of the MLP of prefix_projection, which is false; leave it out, or set prefix_projection to true');
    return spec;
  },
  virtualTokens: ({ num_virtual_tokens: n }) => n,
  countParameters({ num_virtual_tokens: n, prefix_projection, encoder_hidden_size }, model) {
    const { tokenDim, layers } = keyValuePlace(model);
    const width = 2 * layers * tokenDim;
    if (!prefix_projection) return n * width;
    const hidden = encoder_hidden_size ?? tokenDim;
    return n * tokenDim + hidden * (tokenDim + 1) + width * (hidden + 1);
  },
};

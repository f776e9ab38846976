import { z } from 'zod';
import { parseModelConfig } from '../parse-config';

const size = (most: number) => z.int().min(1).max(most);

/** Fields of a `config.json` with `"model_type": "gpt2"` that change the computation, with Transformers' defaults. Its dropouts are for pre-training and not applied. */
const schema = z
  .object({
    vocab_size: size(1 << 24).default(50257),
    n_embd: size(1 << 17).default(768),
    n_layer: size(1024).default(12),
    n_head: size(1024).default(12),
    n_positions: size(1 << 24).default(1024),
    n_inner: size(1 << 19).nullish(),
    layer_norm_epsilon: z.number().positive().max(1).default(1e-5),
    activation_function: z
      .enum(['gelu_new', 'gelu_pytorch_tanh'], { error: ({ input }) => `only "gelu_new" and "gelu_pytorch_tanh" are supported, got ${JSON.stringify(input)?.slice(0, 60)}` })
      .default('gelu_new'),
    scale_attn_weights: z.boolean().default(true),
    scale_attn_by_inverse_layer_idx: z.boolean().default(false),
    add_cross_attention: z.literal(false, { error: 'cross attention is not supported' }).default(false),
    tie_word_embeddings: z.boolean().default(true),
  })
  .superRefine(({ n_embd: C, n_head: H }, context) => {
    if (C % H !== 0) context.addIssue({ code: 'custom', path: ['n_embd'], message: `${C} must be a multiple of n_head (${H})` });
  });

/** Sizes in elements. */
export interface Gpt2Config {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly maxPositions: number;
  readonly normEpsilon: number;
  readonly tiedHead: boolean;
  /** Factor of a block's attention scores. */
  attentionScale(layer: number): number;
}

/** @see Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"   @throws TunefleetError `incompatible_artifact` naming the first bad field */
export function parseGpt2(value: unknown): Gpt2Config {
  const raw = parseModelConfig(schema, value);
  const scale = raw.scale_attn_weights ? (raw.n_embd / raw.n_head) ** -0.5 : 1;
  return {
    vocabSize: raw.vocab_size,
    hiddenSize: raw.n_embd,
    intermediateSize: raw.n_inner ?? 4 * raw.n_embd,
    layers: raw.n_layer,
    heads: raw.n_head,
    maxPositions: raw.n_positions,
    normEpsilon: raw.layer_norm_epsilon,
    tiedHead: raw.tie_word_embeddings,
    attentionScale: (layer) => (raw.scale_attn_by_inverse_layer_idx ? scale / (layer + 1) : scale),
  };
}

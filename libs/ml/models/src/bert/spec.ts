import { z } from 'zod';
import { parseModelConfig } from '../parse-config';

const size = (most: number) => z.int().min(1).max(most);

/** Fields of a `config.json` with `"model_type": "bert"` that change the computation, with Transformers' defaults. Its dropouts are not applied. */
const schema = z
  .object({
    model_type: z.literal('bert', { error: ({ input }) => `must be "bert", got ${JSON.stringify(input)?.slice(0, 60)}` }),
    vocab_size: size(1 << 24).default(30522),
    hidden_size: size(1 << 17).default(768),
    intermediate_size: size(1 << 19).default(3072),
    num_hidden_layers: size(1024).default(12),
    num_attention_heads: size(1024).default(12),
    max_position_embeddings: size(1 << 24).default(512),
    type_vocab_size: size(1024).default(2),
    layer_norm_eps: z.number().positive().max(1).default(1e-12),
    hidden_act: z.literal('gelu', { error: ({ input }) => `only the "gelu" activation is supported, got ${JSON.stringify(input)?.slice(0, 60)}` }).default('gelu'),
    position_embedding_type: z.literal('absolute', { error: 'only "absolute" positions are supported' }).default('absolute'),
    is_decoder: z.literal(false, { error: 'BERT as a decoder is not supported' }).default(false),
    architectures: z.array(z.string()).nullish(),
    id2label: z.record(z.string(), z.string()).nullish(),
    num_labels: size(1 << 20).nullish(),
  })
  .superRefine(({ hidden_size: C, num_attention_heads: H }, context) => {
    if (C % H !== 0) context.addIssue({ code: 'custom', path: ['hidden_size'], message: `${C} must be a multiple of num_attention_heads (${H})` });
  });

/** Sizes in elements. */
export interface BertConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly maxPositions: number;
  readonly tokenTypes: number;
  readonly normEpsilon: number;
  /** Of the classifier; null: the checkpoint has none. */
  readonly classes: number | null;
}

/** @see Devlin et al. 2018, arXiv:1810.04805   @throws TunefleetError `incompatible_artifact` naming the first bad field */
export function parseBert(value: unknown): BertConfig {
  const raw = parseModelConfig(schema, value);
  const classifies = raw.architectures?.includes('BertForSequenceClassification') ?? false;
  return {
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    layers: raw.num_hidden_layers,
    heads: raw.num_attention_heads,
    maxPositions: raw.max_position_embeddings,
    tokenTypes: raw.type_vocab_size,
    normEpsilon: raw.layer_norm_eps,
    classes: classifies ? (raw.num_labels ?? Object.keys(raw.id2label ?? { 0: '', 1: '' }).length) : null,
  };
}

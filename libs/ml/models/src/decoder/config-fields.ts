import { z } from 'zod';
import { parseModelConfig } from '../parse-config';
import type { DecoderConfig } from './config';
import { parseRope } from './rope-settings';

const size = (most: number) => z.int().min(1).max(most);

/** Fields of config.json that all models of the family have. Spelling is the file's; unknown fields are dropped. */
const commonSchema = z.object({
  model_type: z.string(),
  vocab_size: size(1 << 24),
  hidden_size: size(1 << 17),
  intermediate_size: size(1 << 19),
  num_hidden_layers: size(1024),
  num_attention_heads: size(1024),
  num_key_value_heads: size(1024).nullish(),
  head_dim: z.int().min(2).max(1024).nullish(),
  max_position_embeddings: size(1 << 24).optional(),
  rms_norm_eps: z.number().positive().max(1).optional(),
  tie_word_embeddings: z.boolean().optional(),
});

/** What the configuration class of a model type in Transformers assumes where the file is silent. */
export interface DecoderDefaults {
  readonly maxPositions: number;
  readonly ropeTheta?: number;
  readonly normEpsilon?: number;
  readonly tiedHead?: boolean;
  /** Default: hidden size / heads. */
  readonly headDim?: number;
}

/**
 * The family's simplest member with the sizes of a config.json: no biases, one norm before each half block, SiLU, full attention. Model types change what they do otherwise.
 * @throws TunefleetError `incompatible_artifact` naming the first bad field
 */
export function parseCommonFields(value: unknown, defaults: DecoderDefaults): DecoderConfig {
  const raw = parseModelConfig(
    commonSchema
      .transform((fields) => ({
        ...fields,
        num_key_value_heads: fields.num_key_value_heads ?? fields.num_attention_heads,
        head_dim: fields.head_dim ?? defaults.headDim ?? fields.hidden_size / fields.num_attention_heads,
      }))
      .superRefine(({ head_dim: D, num_attention_heads: H, num_key_value_heads: K, hidden_size: C }, context) => {
        const issue = (message: string) => context.addIssue({ code: 'custom', message });
        if (!Number.isInteger(D) || D % 2 !== 0) issue(`head_dim must be an even whole number, got ${D} (hidden_size ${C}, num_attention_heads ${H})`);
        if (H % K !== 0) issue(`num_attention_heads (${H}) must be a multiple of num_key_value_heads (${K})`);
      }),
    value,
  );
  const rope = parseRope(value, defaults.ropeTheta ?? 10_000);
  return {
    modelType: raw.model_type,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    heads: raw.num_attention_heads,
    keyValueHeads: raw.num_key_value_heads,
    headDim: raw.head_dim,
    maxPositions: raw.max_position_embeddings ?? defaults.maxPositions,
    normEpsilon: raw.rms_norm_eps ?? defaults.normEpsilon ?? 1e-6,
    tiedHead: raw.tie_word_embeddings ?? defaults.tiedHead ?? false,
    layers: new Array(raw.num_hidden_layers).fill({ rope, window: null }),
    bias: { qkv: false, output: false, mlp: false },
    fusedMaps: false,
    queryKeyNorm: false,
    outputNorms: false,
    centredNorms: false,
    activation: 'silu',
    embeddingScale: 1,
    attentionScale: raw.head_dim ** -0.5,
    attentionSoftcap: null,
    logitSoftcap: null,
  };
}

/** `hidden_act` of models that know SiLU only. */
export const siluOnly = z.literal('silu', { error: ({ input }) => `only the "silu" activation is supported, got ${JSON.stringify(input)?.slice(0, 60)}` }).default('silu');

/** Tokens of a sliding window. */
export const windowSize = size(1 << 24);

const layerTypes = z.array(z.enum(['full_attention', 'sliding_attention'], { error: ({ input }) => `layer type ${JSON.stringify(input)?.slice(0, 60)} is not supported; "full_attention" and "sliding_attention" are` }));

/**
 * `layer_types`, or what `usual` says where the file has none.
 * @returns per block whether it has a sliding window
 */
export function parseLayerTypes(value: unknown, layers: number, usual: (layer: number) => boolean): readonly boolean[] {
  const schema = z.object({ layer_types: layerTypes.length(layers, { error: `must name one type for each of the ${layers} blocks` }).nullish() });
  const given = parseModelConfig(schema, value).layer_types;
  return Array.from({ length: layers }, (_, layer) => (given ? given[layer] === 'sliding_attention' : usual(layer)));
}

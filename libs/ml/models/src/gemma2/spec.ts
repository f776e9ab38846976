import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseCommonFields, parseLayerTypes, windowSize } from '../decoder/config-fields';
import { parseModelConfig } from '../parse-config';

const softcap = z.number().positive().max(1e6).nullable();

/** Fields that Gemma 2 and 3 share. `hidden_act` of old files is superseded by `hidden_activation` and not read, as in Transformers. */
export const gemmaSchema = z.object({
  hidden_activation: z
    .literal('gelu_pytorch_tanh', { error: ({ input }) => `only the "gelu_pytorch_tanh" activation is supported, got ${JSON.stringify(input)?.slice(0, 60)}` })
    .default('gelu_pytorch_tanh'),
  attention_bias: z.boolean().default(false),
  query_pre_attn_scalar: z.number().positive().max(1e6).default(256),
  sliding_window: windowSize.nullish(),
  use_bidirectional_attention: z.literal(false, { error: 'attention to later tokens is not supported' }).nullish(),
});

const schema = z.object({ attn_logit_softcapping: softcap.default(50), final_logit_softcapping: softcap.default(30) });

/** Caps on scores and logits, every other block with a window. @see Gemma Team 2024, arXiv:2408.00118 */
export function parseGemma2(config: unknown): DecoderConfig {
  const common = parseGemmaFields(config, 8192);
  const caps = parseModelConfig(schema, config);
  const window = parseModelConfig(gemmaSchema, config).sliding_window ?? 4096;
  const sliding = parseLayerTypes(config, common.layers.length, (layer) => layer % 2 === 0);
  return {
    ...common,
    attentionSoftcap: caps.attn_logit_softcapping,
    logitSoftcap: caps.final_logit_softcapping,
    layers: common.layers.map((settings, layer) => ({ ...settings, window: sliding[layer] ? window : null })),
  };
}

/** What all Gemmas from the second on have: centred norms before and after each half block, scaled embeddings, GELU, a query scale of its own. */
export function parseGemmaFields(config: unknown, maxPositions: number): DecoderConfig {
  const common = parseCommonFields(config, { maxPositions, headDim: 256, tiedHead: true });
  const { attention_bias: attention, query_pre_attn_scalar: queryScale } = parseModelConfig(gemmaSchema, config);
  return {
    ...common,
    bias: { qkv: attention, output: attention, mlp: false },
    activation: 'gelu_tanh',
    centredNorms: true,
    outputNorms: true,
    embeddingScale: Math.sqrt(common.hiddenSize),
    attentionScale: queryScale ** -0.5,
  };
}

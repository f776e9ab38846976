import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseLayerTypes } from '../decoder/config-fields';
import { asObject, parseRope } from '../decoder/rope-settings';
import { gemmaSchema, parseGemmaFields } from '../gemma2/spec';
import { parseModelConfig } from '../parse-config';

const schema = z.object({
  /** Transformers reads the field but does not apply it in this model. */
  attn_logit_softcapping: z.null({ error: 'caps on attention scores are not part of Gemma 3; only null is supported' }).optional(),
  final_logit_softcapping: z.number().positive().max(1e6).nullish(),
  /** One block in so many sees everything, where there are no `layer_types`. */
  sliding_window_pattern: z.int().min(1).max(1024).default(6),
  rope_local_base_freq: z.number().positive().default(10_000),
});

/** Gemma 2 without the cap on scores, with normed queries and keys, and rotary positions of their own in blocks with a window. @see Gemma Team 2025, arXiv:2503.19786 */
export function parseGemma3(config: unknown): DecoderConfig {
  const common = parseGemmaFields(config, 131_072);
  const fields = parseModelConfig(schema, config);
  const window = parseModelConfig(gemmaSchema, config).sliding_window ?? 4096;
  const sliding = parseLayerTypes(config, common.layers.length, (layer) => (layer + 1) % fields.sliding_window_pattern !== 0);
  const { local, global } = ropes(config, fields.rope_local_base_freq);
  return {
    ...common,
    queryKeyNorm: true,
    logitSoftcap: fields.final_logit_softcapping ?? null,
    layers: common.layers.map((_, layer) => (sliding[layer] ? { rope: local, window } : { rope: global, window: null })),
  };
}

/** Transformers 5 writes one entry per layer type; before, `rope_theta` and `rope_scaling` were those of full attention. */
function ropes(config: unknown, localTheta: number) {
  const byType = asObject(asObject(config)['rope_parameters']);
  const [local, global] = [byType['sliding_attention'], byType['full_attention']];
  return {
    local: parseRope({ rope_parameters: local }, localTheta),
    global: parseRope(global === undefined ? config : { rope_parameters: global }, 1_000_000),
  };
}

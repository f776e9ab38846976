import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseCommonFields, parseLayerTypes, siluOnly, windowSize } from '../decoder/config-fields';
import { parseModelConfig } from '../parse-config';

const schema = z.object({
  hidden_act: siluOnly,
  use_sliding_window: z.boolean().default(false),
  sliding_window: windowSize.nullish(),
  /** The first block with a window, where there are no `layer_types`. */
  max_window_layers: z.int().min(0).max(1024).default(28),
});

/** Llama with biases on q, k and v; upper blocks may have a sliding window. Also Qwen2.5. @see Yang et al. 2024, arXiv:2407.10671 */
export function parseQwen2(config: unknown): DecoderConfig {
  const common = withQwenWindows(config, parseCommonFields(config, { maxPositions: 32768 }));
  return { ...common, bias: { qkv: true, output: false, mlp: false } };
}

/** `use_sliding_window` of Qwen2 and Qwen3. */
export function withQwenWindows(value: unknown, config: DecoderConfig): DecoderConfig {
  const { use_sliding_window: used, sliding_window: size, max_window_layers: first } = parseModelConfig(schema, value);
  const window = used ? (size ?? 4096) : null;
  const sliding = parseLayerTypes(value, config.layers.length, (layer) => layer >= first);
  return { ...config, layers: config.layers.map((settings, layer) => ({ ...settings, window: sliding[layer] ? window : null })) };
}

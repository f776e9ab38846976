import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseCommonFields } from '../decoder/config-fields';
import { parseModelConfig } from '../parse-config';
import { withQwenWindows } from '../qwen2/spec';

const schema = z.object({ attention_bias: z.boolean().default(false) });

/** Llama with normed queries and keys and a head width of its own. @see Yang et al. 2025, arXiv:2505.09388 */
export function parseQwen3(config: unknown): DecoderConfig {
  const common = withQwenWindows(config, parseCommonFields(config, { maxPositions: 32768, headDim: 128 }));
  const { attention_bias: attention } = parseModelConfig(schema, config);
  return { ...common, queryKeyNorm: true, bias: { qkv: attention, output: attention, mlp: false } };
}

import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseCommonFields, siluOnly, windowSize } from '../decoder/config-fields';
import { parseModelConfig } from '../parse-config';

const schema = z.object({
  hidden_act: siluOnly,
  /** Absent is not null: Transformers' default is a window. */
  sliding_window: windowSize.nullable().default(4096),
});

/** Llama with a sliding window in every block, in its first versions. @see Jiang et al. 2023, arXiv:2310.06825 */
export function parseMistral(config: unknown): DecoderConfig {
  const common = parseCommonFields(config, { maxPositions: 131_072 });
  const { sliding_window: window } = parseModelConfig(schema, config);
  return { ...common, layers: common.layers.map((settings) => ({ ...settings, window })) };
}

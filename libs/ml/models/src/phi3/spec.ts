import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseCommonFields, siluOnly, windowSize } from '../decoder/config-fields';
import { parseModelConfig } from '../parse-config';

const schema = z.object({ hidden_act: siluOnly, sliding_window: windowSize.nullish() });

/** Llama with q, k, v in one map and gate, up in another. Phi-3 and Phi-4 without long-context scaling (`longrope`). @see Abdin et al. 2024, arXiv:2404.14219 */
export function parsePhi3(config: unknown): DecoderConfig {
  const common = parseCommonFields(config, { maxPositions: 4096, normEpsilon: 1e-5 });
  const { sliding_window: window } = parseModelConfig(schema, config);
  return { ...common, fusedMaps: true, layers: common.layers.map((settings) => ({ ...settings, window: window ?? null })) };
}

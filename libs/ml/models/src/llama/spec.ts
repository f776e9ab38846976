import { z } from 'zod';
import type { DecoderConfig } from '../decoder/config';
import { parseCommonFields, siluOnly } from '../decoder/config-fields';
import { parseModelConfig } from '../parse-config';

const schema = z.object({ attention_bias: z.boolean().default(false), mlp_bias: z.boolean().default(false), hidden_act: siluOnly });

/** @see Touvron et al. 2023, arXiv:2302.13971   @throws TunefleetError `incompatible_artifact` naming the first bad field */
export function parseLlama(config: unknown): DecoderConfig {
  const common = parseCommonFields(config, { maxPositions: 2048 });
  const { attention_bias: attention, mlp_bias: mlp } = parseModelConfig(schema, config);
  return { ...common, bias: { qkv: attention, output: attention, mlp } };
}

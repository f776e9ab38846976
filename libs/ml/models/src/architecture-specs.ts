import { TunefleetError } from '@tunefleet/foundation';
import type { ArchitectureSpec, CausalLmDescription } from './description';
import type { DecoderConfig } from './decoder/config';
import { describeDecoder } from './decoder/describe';
import { parseGemma2 } from './gemma2/spec';
import { parseGemma3 } from './gemma3_text/spec';
import { describeGpt2 } from './gpt2/describe';
import { parseLlama } from './llama/spec';
import { mapValues } from './map-values';
import { parseMistral } from './mistral/spec';
import { parsePhi3 } from './phi3/spec';
import { parseQwen2 } from './qwen2/spec';
import { parseQwen3 } from './qwen3/spec';

/** Model types of the decoder family of `decoder/config.ts`, each with its reading of config.json. */
export const decoderFamily = {
  llama: parseLlama,
  qwen2: parseQwen2,
  mistral: parseMistral,
  qwen3: parseQwen3,
  phi3: parsePhi3,
  gemma2: parseGemma2,
  gemma3_text: parseGemma3,
} as const satisfies Record<string, (config: unknown) => DecoderConfig>;


/** Architectures by `model_type`, without TensorFlow. Each has its other half in `registry.ts`. */
export const architectureSpecs = {
  ...mapValues(decoderFamily, (parse): ArchitectureSpec => ({ describe: (config) => describeDecoder(parse(config)) })),
  gpt2: { describe: describeGpt2 },
} as const satisfies Record<string, ArchitectureSpec>;

export type ModelType = keyof typeof architectureSpecs;

/** @throws TunefleetError `incompatible_artifact`, reason `unsupported_architecture` */
export function modelTypeOf(config: unknown): ModelType {
  const type: unknown = config !== null && typeof config === 'object' ? (config as Record<string, unknown>)['model_type'] : undefined;
  if (typeof type === 'string' && Object.hasOwn(architectureSpecs, type)) return type as ModelType;
  const said = typeof type === 'string' ? `model_type "${type.slice(0, 60)}"` : 'no model_type';
  throw new TunefleetError('incompatible_artifact', `the model's config.json has ${said}; supported: ${Object.keys(architectureSpecs).join(', ')}`, {
    reason: 'unsupported_architecture',
  });
}

/** What `config.json` says about a model. @throws TunefleetError `incompatible_artifact` when it is not a model we can run */
export function describeCausalLm(config: unknown): CausalLmDescription {
  return architectureSpecs[modelTypeOf(config)].describe(config);
}

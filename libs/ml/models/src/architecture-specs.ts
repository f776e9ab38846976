import { TunefleetError } from '@tunefleet/foundation';
import type { ArchitectureSpec, CausalLmDescription } from './description';
import { describeDecoder } from './decoder/describe';
import { parseLlama } from './llama/spec';

/** Architectures by `model_type`, without TensorFlow. Each has its other half in `registry.ts`. */
export const architectureSpecs = {
  llama: { describe: (config) => describeDecoder(parseLlama(config)) },
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

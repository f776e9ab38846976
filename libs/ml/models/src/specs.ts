/** TensorFlow-free half of the models library: schemas, descriptions and sources that the control plane, CLI and console may import. */
export { architectureSpecs, decoderFamily, describeCausalLm, modelTypeOf, type ModelType } from './architecture-specs';
export type { DecoderConfig } from './decoder/config';
export { parseGpt2 } from './gpt2/spec';
export type { ArchitectureSpec, CausalLmDescription } from './description';
export * from './weight-source';
export * from './sources';

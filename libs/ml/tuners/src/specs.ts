/** TensorFlow-free half of the tuners: schemas, name matching and estimates that the control plane, CLI and console may import. */
export { fixedStates, type FixedStates } from './fixed-states';
export { matchProjections, type LoraTarget } from './lora/match';
export { loraSpecSchema, type LoraSpec } from './lora/spec';
export { estimateMemory, JOINED_BYTES_MAX, type MemoryEstimate, type TrainingShape } from './memory-estimate';
export { sharedPasses, type SharedPasses } from './shared-passes';
export { parseTunerSpec, specHalfOf, tunerSpecs, type TunerKind, type TunerSpec } from './spec-registry';
export { textPositions } from './text-positions';
export type { TunerSpecHalf } from './tuner-spec';
export type { TunableModel } from './tuner';

export { composeHooks } from './composition/compose-hooks';
export { COMBINATIONS, combineLoras, type Combination, type CombineOptions, type CombinedLora, type WeightedLora } from './combination/combine';
export { loraFactorsOf, type LoraFactorsOnDisk } from './lora/factors';
export { openAdapter, type LoadedAdapter } from './loaded-adapter';
export { createTuner, loadAdapter, tuners, weightChangesOf } from './registry';
export * from './specs';
export * from './tuner';
export type { BaseOnDisk, WeightChange, WeightChanges } from './weight-changes';

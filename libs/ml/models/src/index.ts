export { loadBert } from './bert/load';
export * from './causal-lm';
export * from './encoder';
export { Checkpoint } from './loading/checkpoint';
export { loadCausalLm, type LoadOptions } from './loading/load-causal-lm';
export { shapeCausalLm } from './loading/shape-causal-lm';
export { checkpointTensors } from './registry';
export * from './specs';

export * from './causal-lm';
export { loadCausalLm, type LoadOptions } from './loading/load-causal-lm';
export * from './specs';

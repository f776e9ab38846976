export * from './causal-lm';
export * from './specs';

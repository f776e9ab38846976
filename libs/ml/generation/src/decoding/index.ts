export * from './batch-generator';
export * from './generate';
export * from './prefix-cache';
export * from './sequence-logits';
export * from './stop-tokens';

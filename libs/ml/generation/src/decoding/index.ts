export * from './generate';
export * from './prefix-cache';
export * from './stop-tokens';

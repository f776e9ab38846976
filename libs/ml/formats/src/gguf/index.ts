export * from './convert';
export * from './file';
export * from './llama-names';
export { dequantise } from './quantised';
export * from './tokenizer';

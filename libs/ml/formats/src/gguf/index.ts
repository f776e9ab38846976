export * from './convert';
export * from './file';
export * from './llama-names';
export * from './names';
export { dequantise } from './quantised';
export * from './quantise';
export * from './tokenizer';
export * from './tokenizer-fields';
export * from './writer';

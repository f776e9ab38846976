export * from './numeric/half';
export * from './safetensors';

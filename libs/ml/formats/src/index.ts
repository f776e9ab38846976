export * from './adapter-files';
export * from './gguf';
export * from './hf-folder/model-folder';
export * from './numeric/half';
export * from './numeric/rope-rows';
export * from './peft';
export * from './safetensors';

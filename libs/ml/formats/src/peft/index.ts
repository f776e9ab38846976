export * from './adapter-folder';
export * from './adapter-keys';
export * from './lora-config';
export * from './model-card';

export * from './adapter-keys';
export * from './lora-config';
export * from './lora-folder';

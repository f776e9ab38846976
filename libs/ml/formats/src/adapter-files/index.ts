export * from './adapter-files';
export * from './model-card';
export { inPeftForm } from './swift-lora';

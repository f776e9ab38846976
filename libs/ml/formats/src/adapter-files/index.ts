export * from './adapter-files';
export * from './adapter-root';
export * from './files';
export * from './model-card';
export { inPeftForm } from './swift-lora';

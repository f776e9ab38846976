export * from './adapter-files';
export * from './model-card';

export * from './error-map';
export * from './failure';
export * from './waiting';
export * from './jobs';
export * from './openai';
export * from './native';
export * from './fleet';

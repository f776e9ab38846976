export * from './assert';
export * from './backoff';
export * from './clock';
export * from './counter-random';
export * from './errors';
export * from './ids';
export * from './json';
export * from './logger';

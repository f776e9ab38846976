export * from './specs';

export * from './sampling';

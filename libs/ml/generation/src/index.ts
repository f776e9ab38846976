export * from './decoding';
export * from './sampling';

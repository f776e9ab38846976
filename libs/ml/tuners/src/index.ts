export * from './tuner';

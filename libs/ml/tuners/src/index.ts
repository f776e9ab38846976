export { openAdapter, type LoadedAdapter } from './loaded-adapter';
export { createTuner, loadAdapter, tuners } from './registry';
export * from './specs';
export * from './tuner';

export * from './evals';
export * from './fleet-view';
export * from './jobs';

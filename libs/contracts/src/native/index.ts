export * from './checkpoints';
export * from './evals';
export * from './fleet-view';
export * from './jobs';
export * from './status';
export * from './teams';
export * from './usage';
export * from './worker-access';

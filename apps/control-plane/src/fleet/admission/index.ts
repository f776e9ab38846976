export * from './failed-joins';
export * from './fleet-gate';
export * from './scope';
export * from './secrets';

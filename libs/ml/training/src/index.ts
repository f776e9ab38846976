export * from './adamw';
export * from './batch-plan';
export * from './checkpoint';
export * from './collate';
export * from './schedule';
export * from './settings';
export * from './trainer';
export * from './trainer-state';

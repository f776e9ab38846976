export * from './adamw';
export * from './batch-plan';
export * from './collate';
export * from './schedule';

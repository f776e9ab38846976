export * from './blob-store';
export * from './fleet-access';
export * from './fleet-store';
export * from './job-queue';
export * from './outbox';
export * from './record-store';
export * from './records';

export * from './blob-store';
export * from './controls';
export * from './fleet-store';
export * from './job-queue';
export * from './outbox';
export * from './record-store';
export * from './scheduling';
export * from './store-under-test';

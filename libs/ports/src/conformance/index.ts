export * from './blob-store';
export * from './job-queue';
export * from './record-store';
export * from './store-under-test';

export * from './blob-store';
export * from './job-queue';

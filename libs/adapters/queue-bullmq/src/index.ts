export { openQueue, type QueueOptions } from './open-queue';
export type { RetryPolicy } from './bull-job-queue';

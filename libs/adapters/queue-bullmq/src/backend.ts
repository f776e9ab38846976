import type { Job, Queue, QueueOptions, Worker, WorkerOptions } from 'bullmq';

/** The parts of BullMQ's classes used here, which are the same over both stores. */
export type BullQueue = Pick<Queue, 'add' | 'getJobCounts' | 'clean' | 'close' | 'disconnect' | 'waitUntilReady'> & Emitter;
export type BullWorker = Pick<Worker, 'close' | 'disconnect' | 'waitUntilReady'> & Emitter;

interface Emitter {
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'failed', listener: (job: Job | undefined, error: Error) => void): unknown;
}

/** Where BullMQ keeps its messages, and the connections to it. */
export interface Backend {
  readonly kind: 'redis' | 'postgres';
  newQueue(name: string, options: Omit<QueueOptions, 'connection' | 'prefix'>): BullQueue;
  newWorker(name: string, process: (job: Job) => Promise<void>, options: Omit<WorkerOptions, 'connection' | 'prefix'>): BullWorker;
  ping(): Promise<void>;
  /** After every queue and worker has been closed. */
  close(): Promise<void>;
}

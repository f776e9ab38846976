export { openStoreMemory, type MemoryStore, type MemoryStoreOptions } from './open-store-memory';
export type { Change, JobRow, MetricRow, Tables } from './tables';

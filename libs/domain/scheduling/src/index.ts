export * from './labels';
export { correctedRatio, fits, memoryNeed, MEMORY_SHARE, sizeText, type MemoryModel } from './memory-fit';
export * from './plan';
export * from './preemption';
export * from './priority';
export * from './snapshot';
export { decayedUsage, ENTRY_SECONDS_DEFAULT, startOfMonth, USAGE_HALF_LIFE_MS } from './team-shares';
export * from './waiting-reason';

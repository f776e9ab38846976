export * from './counter-random';
export * from './sampler';

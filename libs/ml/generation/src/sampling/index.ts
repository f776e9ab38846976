export * from './choose-tokens';
export * from './sampler';

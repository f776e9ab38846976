export * from './exact-match/exact-match';
export * from './label-likelihood';
export * from './statistics';

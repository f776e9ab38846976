export * from './label-sequences';
export * from './score-labels';

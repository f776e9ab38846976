export * from './label-scorer';
export * from './label-sequences';
export * from './label-tree';

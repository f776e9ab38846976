export * from './control-loops';
export * from './loop';
export * from './reconciler';

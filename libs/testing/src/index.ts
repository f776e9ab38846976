export * from './tiny-model';
export * from './postgres';

export * from './lines';
export * from './parse-row';
export * from './problems';
export * from './rows';
export * from './validate-dataset';

export * from './tokenised-dataset';

export * from './mcnemar';
export * from './wilson';

export * from './job-states';
export * from './after-failure';

export * from './job-states';
export * from './after-failure';
export * from './dependencies';
export * from './failing-worker';
export * from './stop-reasons';
export * from './stuck';
export * from './silence';
export * from './retention';

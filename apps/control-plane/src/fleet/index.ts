export * from './attempt-endings';
export * from './completion';
export * from './fleet-server';
export * from './settings';

export * from './admission';
export * from './attempt-endings';
export * from './completion';
export * from './fleet-server';
export * from './server-credentials';
export * from './settings';

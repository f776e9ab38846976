export * from './tiny-model';
export * from './postgres';
export * from './redis';
export * from './tcp-proxy';
export * from './processes';
export * from './rows';
export * from './stop-on-signal';
export * from './wait';

export * from './dtype';
export * from './file';
export * from './folder';
export { HEADER_BYTES_MAX, parseHeader, type SafetensorsEntry, type SafetensorsHeader } from './header';
export * from './writer';

export { migrateDatabase } from './migrations/migrate-database';
export { openStore, type Store, type StoreOptions } from './store';

export { migrateDatabase } from './migrations/migrate-database';

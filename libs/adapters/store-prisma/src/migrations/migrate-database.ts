import pg from 'pg';
import { TunefleetError, errorMessage, type Logger } from '@tunefleet/foundation';
import { prismaFolder, readMigrations } from './folder';
import { withSchemaEngine } from './schema-engine';

/** Ours alone; Prisma's own migration lock has another number. */
const MIGRATION_LOCK = 8_273_650_114;

/**
 * Applies the migrations that this database lacks and records them in `_prisma_migrations`, as `prisma migrate deploy` does.
 * Replicas that start together take turns behind an advisory lock; the later ones find nothing to do.
 * @returns the names of the migrations applied, oldest first
 * @throws unavailable when the database cannot be reached or a migration fails; the migration's transaction is undone
 */
export async function migrateDatabase(databaseUrl: string, logger?: Logger): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (cause) {
    await client.end().catch(() => undefined);
    throw new TunefleetError('unavailable', `cannot reach the database: ${errorMessage(cause)}. Check DATABASE_URL and that the server is running`, { cause });
  }
  try {
    // Ends with the session: a killed replica blocks nobody.
    await client.query('select pg_advisory_lock($1)', [MIGRATION_LOCK]);
    const applied = await applyPending(databaseUrl);
    if (applied.length > 0) logger?.info({ applied }, 'database migrated');
    return applied;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function applyPending(databaseUrl: string): Promise<readonly string[]> {
  const migrationsList = await readMigrations(prismaFolder());
  try {
    return await withSchemaEngine(databaseUrl, async (engine) => {
      const output = await engine.applyMigrations({ migrationsList, filters: { externalTables: [], externalEnums: [] } });
      return output.appliedMigrationNames;
    });
  } catch (cause) {
    throw new TunefleetError('unavailable', `the database could not be migrated: ${errorMessage(cause)}`, { cause });
  }
}

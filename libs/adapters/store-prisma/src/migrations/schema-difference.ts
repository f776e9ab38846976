import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { prismaFolder } from './folder';
import { withSchemaEngine } from './schema-engine';

/**
 * SQL that would turn the database (or, with `from: 'empty'`, an empty one) into what `schema.prisma` says; for writing a
 * migration and for proving that none is missing. What Prisma cannot express (partial indexes, checks, triggers) is not seen.
 */
export async function schemaDifference(databaseUrl: string, from: 'database' | 'empty'): Promise<string> {
  const path = join(prismaFolder(), 'schema.prisma');
  const files = [{ path, content: await readFile(path, 'utf8') }];
  const output = await withSchemaEngine(databaseUrl, (engine) =>
    engine.diff({
      from: from === 'empty' ? { tag: 'empty' } : { tag: 'schemaDatasource', files, configDir: prismaFolder() },
      to: { tag: 'schemaDatamodel', files },
      script: true,
      exitCode: null,
      filters: { externalTables: [], externalEnums: [] },
    }),
  );
  return output.stdout ?? '';
}

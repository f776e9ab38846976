import { defineConfig } from 'prisma/config';

// `prisma generate` works without a download as long as PRISMA_SCHEMA_ENGINE_BINARY names any executable file, for example
// this Node: generation is WebAssembly and never starts it. Migrations are applied by the control plane at its start
// (`migrateDatabase` of @tunefleet/store-prisma, also WebAssembly); `prisma migrate deploy` does the same where its engine
// binary can be downloaded.
export default defineConfig({
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
});

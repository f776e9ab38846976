import { silentLogger } from '@tunefleet/foundation';
import { controlsConformance, fleetAccessConformance, fleetStoreConformance, outboxConformance, recordStoreConformance, schedulingConformance, sharingConformance } from '@tunefleet/ports/conformance';
import { createDatabase, useDatabase } from '@tunefleet/testing';
import { migrateDatabase } from './migrations/migrate-database';
import { openStore, type Store } from './store';

const serverUrl = useDatabase();
let template: string;
beforeAll(async () => {
  template = await createDatabase(serverUrl());
  await migrateDatabase(template);
}, 60_000);

const open = async (): Promise<Store> => openStore({ databaseUrl: await createDatabase(serverUrl(), template), logger: silentLogger });

recordStoreConformance('Prisma on PostgreSQL', open);
fleetStoreConformance('Prisma on PostgreSQL', open);
fleetAccessConformance('Prisma on PostgreSQL', open);
controlsConformance('Prisma on PostgreSQL', open);
schedulingConformance('Prisma on PostgreSQL', open);
sharingConformance('Prisma on PostgreSQL', open);
outboxConformance('Prisma on PostgreSQL', open);

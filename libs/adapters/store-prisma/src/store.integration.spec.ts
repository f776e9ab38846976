import { silentLogger } from '@tunefleet/foundation';
import { controlsConformance, fleetStoreConformance, outboxConformance, recordStoreConformance, schedulingConformance, type StoreUnderTest } from '@tunefleet/ports/conformance';
import { createDatabase, useDatabase } from '@tunefleet/testing';
import { migrateDatabase } from './migrations/migrate-database';
import { openStore } from './store';

const serverUrl = useDatabase();
let template: string;
beforeAll(async () => {
  template = await createDatabase(serverUrl());
  await migrateDatabase(template);
}, 60_000);

const open = async (): Promise<StoreUnderTest> => openStore({ databaseUrl: await createDatabase(serverUrl(), template), logger: silentLogger });

recordStoreConformance('Prisma on PostgreSQL', open);
fleetStoreConformance('Prisma on PostgreSQL', open);
controlsConformance('Prisma on PostgreSQL', open);
schedulingConformance('Prisma on PostgreSQL', open);
outboxConformance('Prisma on PostgreSQL', open);

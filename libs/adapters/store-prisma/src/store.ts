import type { Logger } from '@tunefleet/foundation';
import type { FleetAccess, FleetStore, Outbox, RecordStore, RetentionStore } from '@tunefleet/ports';
import { prismaFleetAccess } from './access/fleet-access';
import { Database } from './database/database';
import { WakeChannel } from './database/wake-channel';
import { prismaFleetStore } from './fleet/fleet-store';
import { prismaOutbox } from './outbox/outbox';
import { prismaRetentionStore } from './retention/retention-store';
import { prismaRecordStore } from './records/record-store';

export interface StoreOptions {
  /** A database that `migrateDatabase` has brought up to date. */
  readonly databaseUrl: string;
  readonly logger: Logger;
  /** Connections for queries; one more is used for wake-ups once somebody listens. Default 10. */
  readonly poolSize?: number;
}

export interface Store {
  readonly records: RecordStore;
  readonly fleet: FleetStore;
  readonly access: FleetAccess;
  readonly outbox: Outbox;
  readonly retention: RetentionStore;
  close(): Promise<void>;
}

const POOL_SIZE_DEFAULT = 10;

/** The record in PostgreSQL. Connects on first use. */
export function openStore(options: StoreOptions): Store {
  const logger = options.logger.child({ part: 'store' });
  const db = new Database(options.databaseUrl, logger, options.poolSize ?? POOL_SIZE_DEFAULT);
  const wakes = new WakeChannel(options.databaseUrl, logger);
  return {
    records: prismaRecordStore(db),
    fleet: prismaFleetStore(db, wakes),
    access: prismaFleetAccess(db),
    outbox: prismaOutbox(db, logger),
    retention: prismaRetentionStore(db),
    close: async () => {
      await wakes.close();
      await db.close();
    },
  };
}

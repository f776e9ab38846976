import { silentLogger, systemClock } from '@tunefleet/foundation';
import type { BlobStore } from '@tunefleet/ports';
import { openStoreMemory, type MemoryStore } from '@tunefleet/testing/store-memory';
import { AttemptEndings } from '../attempt-endings';
import { FleetServer } from '../fleet-server';

export const FLEET_TOKEN = 'token-of-the-whole-fleet';

/** The gRPC server with its record in memory: for tests of what goes over the wire. */
export interface MemoryFleet {
  readonly store: MemoryStore;
  /** host:port */
  readonly address: string;
  close(): Promise<void>;
}

export async function openMemoryFleet(): Promise<MemoryFleet> {
  const store = openStoreMemory();
  const { fleet, records, access } = store;
  const blobs = { stat: async () => null } as unknown as BlobStore;
  const endings = new AttemptEndings({ fleet, records, blobs, resultCsv: () => '', logger: silentLogger });
  const server = new FleetServer({ host: '127.0.0.1', port: 0, sharedToken: FLEET_TOKEN }, { store: fleet, access, blobs, endings, clock: systemClock, logger: silentLogger });
  const address = `127.0.0.1:${await server.start()}`;
  return {
    store,
    address,
    close: async () => {
      await server.stop();
      await store.close();
    },
  };
}

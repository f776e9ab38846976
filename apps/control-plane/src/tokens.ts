import type { BlobStore, FleetAccess, FleetStore, JobQueue, Outbox, RecordStore } from '@tunefleet/ports';
import type { Clock, Logger } from '@tunefleet/foundation';
import type { ControlPlaneConfig } from './config/config';

/**
 * Injection tokens and what stands behind each. Providers are given by the root module (`app.module.ts`);
 * nothing in here knows an implementation.
 */
export const RECORD_STORE = Symbol('RECORD_STORE');
export const FLEET_STORE = Symbol('FLEET_STORE');
export const FLEET_ACCESS = Symbol('FLEET_ACCESS');
export const OUTBOX = Symbol('OUTBOX');
export const JOB_QUEUE = Symbol('JOB_QUEUE');
export const BLOB_STORE = Symbol('BLOB_STORE');
export const CONFIG = Symbol('CONFIG');
export const LOGGER = Symbol('LOGGER');
export const CLOCK = Symbol('CLOCK');
/** The team that the API key belongs to. */
export const TEAM = Symbol('TEAM');
/** Called with a job that was put on record: intake begins at once. */
export const SUBMITTED = Symbol('SUBMITTED');
/** Removes what is old. */
export const RETENTION = Symbol('RETENTION');
/** What this replica measures of itself. */
export const METRICS = Symbol('METRICS');
/** State of this replica's loops. */
export const LOOPS = Symbol('LOOPS');

/** Everything the parts of the control plane are made of, opened once by `main.ts` and closed in reverse order. */
export interface Runtime {
  readonly config: ControlPlaneConfig;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly records: RecordStore;
  readonly fleet: FleetStore;
  readonly access: FleetAccess;
  readonly outbox: Outbox;
  readonly queue: JobQueue;
  readonly blobs: BlobStore;
}

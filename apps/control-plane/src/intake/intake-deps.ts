import type { Clock, Logger } from '@tunefleet/foundation';
import type { ModelResolver } from '@tunefleet/ml-models/specs';
import type { BlobStore, JobAdmission, JobRecord, RecordStore } from '@tunefleet/ports';

export interface IntakeDeps {
  readonly records: RecordStore;
  readonly blobs: Pick<BlobStore, 'open' | 'stat'>;
  readonly resolver: Pick<ModelResolver, 'describe'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted when the process stops. */
  readonly signal: AbortSignal;
}

/** What a job is admitted with, and what its owner should know. */
export interface Checked {
  readonly admission: JobAdmission;
  readonly notices: readonly string[];
}

/** One job kind's checks. Writes nothing but dataset versions and messages. @throws what `userFailure` and `lastFailure` tell apart */
export type JobCheck = (job: JobRecord, deps: IntakeDeps) => Promise<Checked>;

import { Inject, Injectable } from '@nestjs/common';
import { canonicalJson, errorCode, isTunefleetError, sha256Hex, TunefleetError, type Clock, type JsonObject } from '@tunefleet/foundation';
import type { JobRecord, NewJob, RecordStore } from '@tunefleet/ports';
import type { RepeatHints } from '../http/idempotency';
import { CLOCK, RECORD_STORE, SUBMITTED } from '../tokens';

/** SDKs give a request up after ten minutes, then send it again. */
const REPEAT_WINDOW_MS = 15 * 60_000;
const REPEATS_LOOKED_AT = 20;

/** The job that the new one repeats. */
export type JobOrigin = NonNullable<NewJob['source']>;

export interface Submitted {
  readonly job: JobRecord;
  /** The request had made this job before. */
  readonly replayed: boolean;
}

/** Puts jobs on record, each request once. */
@Injectable()
export class JobSubmission {
  constructor(
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'createJob' | 'listJobs'>,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(SUBMITTED) private readonly submitted: (job: JobRecord) => void,
  ) {}

  /** @throws invalid_input when the idempotency key belongs to another request */
  async submit(job: Omit<NewJob, 'idempotency'>, requestHash: string, hints: RepeatHints): Promise<Submitted> {
    if (hints.key === null && hints.isRetry) {
      const earlier = await this.recentRepeat(job, requestHash);
      if (earlier !== null) return { job: earlier, replayed: true };
    }
    try {
      const { job: record, created } = await this.records.createJob({ ...job, ...(hints.key === null ? {} : { idempotency: { key: hints.key, requestHash } }) });
      if (created) this.submitted(record);
      return { job: record, replayed: !created };
    } catch (error) {
      // 400 instead of 409: sending it again cannot help, and SDKs would.
      if (errorCode(error) === 'conflict' && isTunefleetError(error)) {
        throw new TunefleetError('invalid_input', error.publicMessage, { reason: 'idempotency_key_reuse', param: 'Idempotency-Key', cause: error });
      }
      throw error;
    }
  }

  /** The OpenAI SDKs send no idempotency key, but say when they try again without knowing what became of the first try. */
  private async recentRepeat(job: Pick<NewJob, 'teamId' | 'kind'>, requestHash: string): Promise<JobRecord | null> {
    const { items } = await this.records.listJobs(job.teamId, { kind: job.kind, limit: REPEATS_LOOKED_AT });
    return items.find((earlier) => earlier.spec['requestHash'] === requestHash && this.clock.now() - earlier.createdAt.getTime() < REPEAT_WINDOW_MS) ?? null;
  }
}

/** Equal requests have equal hashes, whatever the order of their fields. A copy is another request than its original. */
export function hashRequest(kind: string, body: unknown, origin?: JobOrigin): string {
  return sha256Hex(canonicalJson({ kind, body, ...(origin === undefined ? {} : { origin }) }));
}

export function asSpec(request: object): JsonObject {
  return JSON.parse(JSON.stringify(request)) as JsonObject;
}

import type { JsonValue } from '@tunefleet/foundation';

/** What a user wanted of one job, and what came of the wish to cancel it. */
export interface Wish {
  /** The idempotency key it was submitted with, however often. */
  readonly key: string;
  readonly template: string;
  /** Null: no submit was ever answered. */
  jobId: string | null;
  /** `unsure`: a cancel was sent and not answered, so both ends are right. */
  cancel: 'none' | 'unsure' | 'confirmed';
}

export interface JobRow {
  readonly id: string;
  readonly key: string | null;
  readonly kind: string;
  readonly status: string;
  readonly epoch: number;
  readonly totalSteps: number | null;
  readonly result: JsonValue;
  readonly error: JsonValue;
  readonly waitingReason: string | null;
  readonly resultFileIds: readonly string[];
}

export interface AttemptRow {
  readonly id: string;
  readonly jobId: string;
  readonly epoch: number;
  readonly workerId: string;
  readonly status: string;
  readonly outcome: string | null;
  readonly resumed: boolean;
}

/** Null in `from`: the row was made. In the order in which they happened. */
export interface JobChange {
  readonly jobId: string;
  readonly from: string | null;
  readonly to: string;
  readonly fromEpoch: number | null;
  readonly toEpoch: number;
}

export interface AttemptChange {
  readonly attemptId: string;
  readonly jobId: string;
  readonly workerId: string;
  readonly epoch: number;
  readonly from: string | null;
  readonly to: string;
  readonly outcome: string | null;
  /** Milliseconds since 1970, of the database's clock. */
  readonly atMs: number;
  readonly leaseEndsMs: number;
  /** Its worker has started anew since it was given the attempt. */
  readonly workerIsNew: boolean;
}

export interface MetricRow {
  readonly jobId: string;
  readonly name: string;
  readonly step: number;
  readonly value: number;
  readonly epoch: number;
}

/** A point that a later attempt told otherwise than an earlier one. */
export interface MetricChange {
  readonly jobId: string;
  readonly name: string;
  readonly step: number;
  readonly from: number;
  readonly to: number;
}

export interface Artifact {
  readonly name: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface AdapterRow {
  readonly id: string;
  readonly jobId: string;
  readonly artifacts: readonly Artifact[];
}

export interface ResultFileRow {
  readonly id: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** All that the rules look at: the record as it is in the end, and how it changed on the way. */
export interface ChaosRecord {
  readonly jobs: readonly JobRow[];
  readonly attempts: readonly AttemptRow[];
  readonly jobChanges: readonly JobChange[];
  readonly attemptChanges: readonly AttemptChange[];
  readonly metrics: readonly MetricRow[];
  readonly metricChanges: readonly MetricChange[];
  /** One for each step whose metrics were announced to those who follow the job. */
  readonly announcedSteps: readonly { readonly jobId: string; readonly step: number }[];
  readonly adapters: readonly AdapterRow[];
  readonly resultFiles: readonly ResultFileRow[];
  /** Blobs that adapters, result files and checkpoints name, and whether the store holds those very bytes. */
  readonly blobs: readonly { readonly sha256: string; readonly namedBy: string; readonly state: 'stored' | 'missing' | 'other bytes' }[];
}

/** An undisturbed job of a template. */
export interface Reference {
  readonly template: string;
  readonly jobId: string;
}

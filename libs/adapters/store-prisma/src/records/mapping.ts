// Rows as Prisma reads them -> records of the ports. JSON was validated when it was written and is checked again where the
// shape matters to others.
import { artifactListSchema, failureSchema, isJobKind, type Failure, type JobKind, type WaitingCode } from '@tunefleet/contracts';
import { jobTransitions, type JobStatus, type StopReason } from '@tunefleet/domain-jobs';
import { invariant, type JsonObject, type JsonValue } from '@tunefleet/foundation';
import type {
  AdapterRecord,
  AttemptOutcome,
  AttemptRecord,
  AttemptStatus,
  CheckpointRecord,
  DatasetVersionRecord,
  FileRecord,
  JobEventRecord,
  JobRecord,
  JobRelation,
  WorkerDevice,
  WorkerRecord,
} from '@tunefleet/ports';
import type { Prisma, Adapter, Attempt, Checkpoint, DatasetVersion, File, Job, JobEvent, Worker } from '../generated/client';

/** In JSON text: NUL, and halves of surrogate pairs (`JSON.stringify` escapes no whole ones). Not a backslash before such letters. */
const UNSTORABLE = /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g;

/** The JSON text of a value, without what PostgreSQL's jsonb refuses and a worker's log or a user's file may hold. */
export function jsonText(value: object): string {
  return JSON.stringify(value).replace(UNSTORABLE, '$1\ufffd');
}

/** The same for text columns, which refuse only NUL. */
export function plainText(text: string): string {
  return text.replaceAll('\u0000', '\ufffd');
}

/** As `jsonText`, for Prisma's own methods. Numbers that are none become null. */
export function toJson(value: object): Prisma.InputJsonValue {
  return JSON.parse(jsonText(value)) as Prisma.InputJsonValue;
}

/** Within the bounds that are checked when it is read. */
export function boundedFailure(failure: Failure): Failure {
  return { ...failure, message: failure.message.slice(0, 4000), logTail: failure.logTail.slice(-50).map((line) => line.slice(0, 2000)) };
}

function objectOf(value: Prisma.JsonValue): JsonObject {
  invariant(value !== null && typeof value === 'object' && !Array.isArray(value), 'a JSON object was expected in the database');
  return value as JsonObject;
}

function objectOrNull(value: Prisma.JsonValue | null): JsonObject | null {
  return value === null ? null : objectOf(value);
}

/** Sizes and sequence numbers: far below 2^53, checked all the same. */
export function toNumber(value: bigint): number {
  const number = Number(value);
  invariant(Number.isSafeInteger(number), `${value} is too large for a number`);
  return number;
}

function kindOf(kind: string): JobKind {
  invariant(isJobKind(kind), `the database holds a job of the unknown kind "${kind}"; was it written by a newer version?`);
  return kind;
}

function statusOf(status: string): JobStatus {
  invariant(status in jobTransitions, `the database holds a job with the unknown status "${status}"`);
  return status as JobStatus;
}

export function fileRecord(row: File): FileRecord {
  return { ...row, bytes: toNumber(row.bytes), status: row.status as FileRecord['status'] };
}

export function datasetVersionRecord(row: DatasetVersion): DatasetVersionRecord {
  return { ...row, summary: objectOf(row.summary) };
}

export function jobRecord(row: Job): JobRecord {
  const { idempotencyKey: _key, idempotencyHash: _hash, weightBytes: _weights, shape: _shape, memoryModel: _model, localitySince: _since, sharedMemoryBytes: _shared, ...job } = row;
  return {
    ...job,
    kind: kindOf(row.kind),
    status: statusOf(row.status),
    spec: objectOf(row.spec),
    workerSpec: objectOrNull(row.workerSpec),
    metadata: objectOrNull(row.metadata) as Readonly<Record<string, string>> | null,
    workerSelector: objectOf(row.workerSelector) as Readonly<Record<string, string>>,
    waitingCode: row.waitingCode as WaitingCode | null,
    memoryBytesEstimate: row.memoryBytesEstimate === null ? null : toNumber(row.memoryBytesEstimate),
    error: row.error === null ? null : failureSchema.parse(row.error),
    result: objectOrNull(row.result),
    sourceRelation: row.sourceRelation as JobRelation | null,
    stopReason: row.stopReason as StopReason | null,
  };
}

export function attemptRecord(row: Attempt): AttemptRecord {
  return {
    ...row,
    status: row.status as AttemptStatus,
    outcome: row.outcome as AttemptOutcome | null,
    lastSeq: toNumber(row.lastSeq),
    stopReason: row.stopReason as StopReason | null,
    failure: row.failure === null ? null : failureSchema.parse(row.failure),
  };
}

export function checkpointRecord(row: Checkpoint): CheckpointRecord {
  return { ...row, artifacts: artifactListSchema.parse(row.artifacts), metrics: objectOf(row.metrics) as Readonly<Record<string, number>> };
}

export function adapterRecord(row: Adapter): AdapterRecord {
  const { deletedAt: _deletedAt, ...adapter } = row;
  return { ...adapter, artifacts: artifactListSchema.parse(row.artifacts) };
}

export function workerRecord(row: Worker): WorkerRecord {
  const { createdAt: _createdAt, ...worker } = row;
  return {
    ...worker,
    status: row.status as WorkerRecord['status'],
    drain: row.drain as WorkerRecord['drain'],
    device: objectOf(row.device) as unknown as WorkerDevice,
    labels: objectOf(row.labels) as Readonly<Record<string, string>>,
  };
}

const EVENT_ID_PREFIX = 'ftevent-';

/** Fixed width, so that ids sort as text in the order of the events. */
export function eventId(id: bigint): string {
  return EVENT_ID_PREFIX + id.toString().padStart(12, '0');
}

/** Null: not an id of ours. */
export function parseEventId(id: string): bigint | null {
  const digits = /^ftevent-(\d{1,18})$/.exec(id)?.[1];
  return digits === undefined ? null : BigInt(digits);
}

export function jobEventRecord(row: JobEvent): JobEventRecord {
  return { ...row, id: eventId(row.id), level: row.level as JobEventRecord['level'], type: row.type as JobEventRecord['type'], data: row.data as JsonValue };
}

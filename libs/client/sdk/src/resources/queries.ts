import type { Metadata } from '@tunefleet/contracts';
import type { CallOptions, QueryValue } from '../http/transport';

export interface PageQuery extends CallOptions {
  readonly limit?: number | undefined;
  /** Id of the last item already seen. */
  readonly after?: string | undefined;
}

export interface MetadataQuery extends PageQuery {
  /** Only jobs with all these pairs; null: only jobs without metadata. */
  readonly metadata?: Metadata | null | undefined;
}

export interface CreateOptions extends CallOptions {
  /** The same key with the same request gives the same job. Default: a new one for each call. */
  readonly idempotencyKey?: string;
}

/** Metadata in the API's spelling: `metadata[key]=value`, or `metadata=null`. */
export function pageQuery({ metadata, ...query }: Omit<MetadataQuery, 'signal'> & Readonly<Record<string, unknown>>): Record<string, QueryValue> {
  const labels = metadata === null ? { metadata: 'null' } : Object.fromEntries(Object.entries(metadata ?? {}).map(([key, value]) => [`metadata[${key}]`, value]));
  return { ...(query as Record<string, QueryValue>), ...labels };
}

export function createHeaders({ idempotencyKey }: CreateOptions): Record<string, string> {
  return { 'idempotency-key': idempotencyKey ?? crypto.randomUUID() };
}

import {
  checkpointListSchema,
  jobDetailSchema,
  jobEventListSchema,
  jobListSchema,
  metricListSchema,
  type CheckpointView,
  type CloneJob,
  type JobDetail,
  type JobEvent,
  type JobStreamMessage,
  type JobSummary,
  type MetricList,
} from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';
import { eachItem } from '../paging';
import { jobStream, type JobStreamOptions } from '../stream/job-stream';
import { createHeaders, pageQuery, type CreateOptions, type MetadataQuery, type PageQuery } from './queries';

export interface JobQuery extends MetadataQuery {
  readonly kind?: JobSummary['kind'] | undefined;
  readonly status?: JobSummary['status'] | undefined;
}

export interface MetricQuery extends CallOptions {
  readonly name?: string | undefined;
  /** Only later steps. */
  readonly sinceStep?: number | undefined;
  readonly limit?: number | undefined;
}

/** Jobs of every kind, with all that is on record about them. */
export class Jobs {
  constructor(private readonly transport: Transport) {}

  /** Newest first. */
  list({ signal, ...query }: JobQuery = {}): Promise<z.infer<typeof jobListSchema>> {
    return this.transport.json(jobListSchema, { path: path('/api/v1', 'jobs'), query: pageQuery(query), signal });
  }

  each(query: JobQuery = {}): AsyncGenerator<JobSummary> {
    return eachItem((after) => this.list({ ...query, after }), query.after);
  }

  get(id: string, { signal }: CallOptions = {}): Promise<JobDetail> {
    return this.transport.json(jobDetailSchema, { path: path('/api/v1', 'jobs', id), signal });
  }

  cancel(id: string, { signal }: CallOptions = {}): Promise<JobDetail> {
    return this.transport.json(jobDetailSchema, { method: 'POST', path: path('/api/v1', 'jobs', id, 'cancel'), repeatable: true, signal });
  }

  /** A running job writes a checkpoint first: it is paused when its status says so. Pausing twice is pausing once. */
  pause(id: string, { signal }: CallOptions = {}): Promise<JobDetail> {
    return this.transport.json(jobDetailSchema, { method: 'POST', path: path('/api/v1', 'jobs', id, 'pause'), repeatable: true, signal });
  }

  /** Back into the queue, to go on from its last checkpoint. */
  resume(id: string, { signal }: CallOptions = {}): Promise<JobDetail> {
    return this.transport.json(jobDetailSchema, { method: 'POST', path: path('/api/v1', 'jobs', id, 'resume'), signal });
  }

  /** Of a job that waits. */
  setPriority(id: string, priority: number, { signal }: CallOptions = {}): Promise<JobDetail> {
    return this.transport.json(jobDetailSchema, { method: 'POST', path: path('/api/v1', 'jobs', id, 'priority'), json: { priority }, repeatable: true, signal });
  }

  /** A new job with the same request. @param changes fields of the request that makes a job of its kind */
  clone(id: string, changes: CloneJob = {}, options: CreateOptions = {}): Promise<JobDetail> {
    const { signal } = options;
    return this.transport.json(jobDetailSchema, { method: 'POST', path: path('/api/v1', 'jobs', id, 'clone'), json: changes, headers: createHeaders(options), repeatable: true, signal });
  }

  /** A new job with the request of one that has failed or was cancelled. */
  retry(id: string, options: CreateOptions = {}): Promise<JobDetail> {
    const { signal } = options;
    return this.transport.json(jobDetailSchema, { method: 'POST', path: path('/api/v1', 'jobs', id, 'retry'), headers: createHeaders(options), repeatable: true, signal });
  }

  /** Newest first. */
  events(id: string, { signal, ...query }: PageQuery = {}): Promise<z.infer<typeof jobEventListSchema>> {
    return this.transport.json(jobEventListSchema, { path: path('/api/v1', 'jobs', id, 'events'), query: pageQuery(query), signal });
  }

  eachEvent(id: string, query: PageQuery = {}): AsyncGenerator<JobEvent> {
    return eachItem((after) => this.events(id, { ...query, after }), query.after);
  }

  /** Resumable states, newest first. */
  checkpoints(id: string, { signal, ...query }: PageQuery = {}): Promise<z.infer<typeof checkpointListSchema>> {
    return this.transport.json(checkpointListSchema, { path: path('/api/v1', 'jobs', id, 'checkpoints'), query: pageQuery(query), signal });
  }

  /** One file of a checkpoint, as its bytes come; check them against its `sha256`. */
  checkpointFile({ id }: Pick<CheckpointView, 'id'>, name: string, { signal }: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.transport.bytes({ path: path('/api/v1', 'checkpoints', id, 'files', name), headers: { accept: 'application/octet-stream' }, signal });
  }

  /** By step, then name. A page holds whole steps: go on with `sinceStep` = the last one seen. */
  metrics(id: string, { signal, name, sinceStep, limit }: MetricQuery = {}): Promise<MetricList> {
    return this.transport.json(metricListSchema, { path: path('/api/v1', 'jobs', id, 'metrics'), query: { name, since_step: sinceStep, limit }, signal });
  }

  /** What happens to a job, as it happens, until its end. */
  stream(id: string, options: JobStreamOptions = {}): AsyncGenerator<JobStreamMessage> {
    return jobStream(this.transport, id, options);
  }
}

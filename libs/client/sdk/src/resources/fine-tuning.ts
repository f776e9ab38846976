import {
  fineTuningCheckpointListSchema,
  fineTuningEventListSchema,
  fineTuningJobListSchema,
  fineTuningJobSchema,
  type CreateFineTuningJob,
  type FineTuningCheckpoint,
  type FineTuningEvent,
  type FineTuningJob,
} from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';
import { createHeaders, pageQuery, type CreateOptions, type MetadataQuery, type PageQuery } from './queries';
import { eachItem } from '../paging';

/** Fine-tune jobs in the shape of OpenAI's API. `client.jobs` shows the same jobs, and evals, with more about their run. */
export class FineTuningJobs {
  constructor(private readonly transport: Transport) {}

  /** Sent with an idempotency key of its own, so that a repeated request makes one job. */
  create(request: CreateFineTuningJob, options: CreateOptions = {}): Promise<FineTuningJob> {
    return this.transport.json(fineTuningJobSchema, {
      method: 'POST',
      path: path('/v1', 'fine_tuning', 'jobs'),
      json: request,
      headers: createHeaders(options),
      repeatable: true,
      signal: options.signal,
    });
  }

  list({ signal, ...query }: MetadataQuery = {}): Promise<z.infer<typeof fineTuningJobListSchema>> {
    return this.transport.json(fineTuningJobListSchema, { path: path('/v1', 'fine_tuning', 'jobs'), query: pageQuery(query), signal });
  }

  each(query: MetadataQuery = {}): AsyncGenerator<FineTuningJob> {
    return eachItem((after) => this.list({ ...query, after }), query.after);
  }

  get(id: string, { signal }: CallOptions = {}): Promise<FineTuningJob> {
    return this.transport.json(fineTuningJobSchema, { path: path('/v1', 'fine_tuning', 'jobs', id), signal });
  }

  /** Cancelling twice is cancelling once. */
  cancel(id: string, { signal }: CallOptions = {}): Promise<FineTuningJob> {
    return this.transport.json(fineTuningJobSchema, { method: 'POST', path: path('/v1', 'fine_tuning', 'jobs', id, 'cancel'), repeatable: true, signal });
  }

  /** A running job writes a checkpoint first: it is paused when its status says so. */
  pause(id: string, { signal }: CallOptions = {}): Promise<FineTuningJob> {
    return this.transport.json(fineTuningJobSchema, { method: 'POST', path: path('/v1', 'fine_tuning', 'jobs', id, 'pause'), repeatable: true, signal });
  }

  /** Back into the queue, to go on from its last checkpoint. */
  resume(id: string, { signal }: CallOptions = {}): Promise<FineTuningJob> {
    return this.transport.json(fineTuningJobSchema, { method: 'POST', path: path('/v1', 'fine_tuning', 'jobs', id, 'resume'), signal });
  }

  /** Newest first. */
  events(id: string, { signal, ...query }: PageQuery = {}): Promise<z.infer<typeof fineTuningEventListSchema>> {
    return this.transport.json(fineTuningEventListSchema, { path: path('/v1', 'fine_tuning', 'jobs', id, 'events'), query: pageQuery(query), signal });
  }

  eachEvent(id: string, query: PageQuery = {}): AsyncGenerator<FineTuningEvent> {
    return eachItem((after) => this.events(id, { ...query, after }), query.after);
  }

  /** Newest first. */
  checkpoints(id: string, { signal, ...query }: PageQuery = {}): Promise<z.infer<typeof fineTuningCheckpointListSchema>> {
    return this.transport.json(fineTuningCheckpointListSchema, { path: path('/v1', 'fine_tuning', 'jobs', id, 'checkpoints'), query: pageQuery(query), signal });
  }

  eachCheckpoint(id: string, query: PageQuery = {}): AsyncGenerator<FineTuningCheckpoint> {
    return eachItem((after) => this.checkpoints(id, { ...query, after }), query.after);
  }
}

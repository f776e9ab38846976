import { evalItemSchema, evalJobListSchema, evalJobSchema, type CreateEval, type EvalItem, type EvalJob } from '@tunefleet/contracts';
import type { z } from 'zod';
import { parseAnswer, path, type CallOptions, type Transport } from '../http/transport';
import { eachItem } from '../paging';
import { textLines } from '../stream/text-lines';
import { createHeaders, pageQuery, type CreateOptions, type MetadataQuery } from './queries';

export interface EvalQuery extends MetadataQuery {
  readonly status?: EvalJob['status'] | undefined;
}

/** Accuracy of models on held-out rows. */
export class Evals {
  constructor(private readonly transport: Transport) {}

  /** Sent with an idempotency key of its own, so that a repeated request makes one eval. */
  create(request: CreateEval, options: CreateOptions = {}): Promise<EvalJob> {
    return this.transport.json(evalJobSchema, {
      method: 'POST',
      path: path('/api/v1', 'evals'),
      json: request,
      headers: createHeaders(options),
      repeatable: true,
      signal: options.signal,
    });
  }

  /** Newest first. */
  list({ signal, ...query }: EvalQuery = {}): Promise<z.infer<typeof evalJobListSchema>> {
    return this.transport.json(evalJobListSchema, { path: path('/api/v1', 'evals'), query: pageQuery(query), signal });
  }

  each(query: EvalQuery = {}): AsyncGenerator<EvalJob> {
    return eachItem((after) => this.list({ ...query, after }), query.after);
  }

  get(id: string, { signal }: CallOptions = {}): Promise<EvalJob> {
    return this.transport.json(evalJobSchema, { path: path('/api/v1', 'evals', id), signal });
  }

  cancel(id: string, { signal }: CallOptions = {}): Promise<EvalJob> {
    return this.transport.json(evalJobSchema, { method: 'POST', path: path('/api/v1', 'evals', id, 'cancel'), repeatable: true, signal });
  }

  /** The answers row by row, streamed. @throws invalid_input unless the eval has succeeded */
  async *items(id: string, { signal }: CallOptions = {}): AsyncGenerator<EvalItem> {
    const where = path('/api/v1', 'evals', id, 'items');
    const body = await this.transport.bytes({ path: where, headers: { accept: 'application/x-ndjson' }, signal });
    for await (const line of textLines(body)) yield parseAnswer(evalItemSchema, line, { path: where });
  }
}

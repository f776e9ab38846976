import { evalItemSchema, evalJobListSchema, evalJobSchema, type CreateEval, type EvalItem, type EvalJob } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';
import { parseAnswer, path, type CallOptions, type Transport } from '../http/transport';
import { eachItem } from '../paging';
import { textLines } from '../stream/text-lines';
import type { Files } from './files';
import { createHeaders, pageQuery, type CreateOptions, type MetadataQuery } from './queries';

export interface EvalQuery extends MetadataQuery {
  readonly status?: EvalJob['status'] | undefined;
}

const ITEMS_FILE = 'items.jsonl';

/** Accuracy of models on held-out rows. */
export class Evals {
  constructor(
    private readonly transport: Transport,
    private readonly files: Files,
  ) {}

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

  /** The answers row by row, streamed. @throws conflict unless the eval has succeeded */
  async *items(id: string, options: CallOptions = {}): AsyncGenerator<EvalItem> {
    const job = await this.get(id, options);
    if (job.status !== 'succeeded') throw new TunefleetError('conflict', `eval ${id} is ${job.status}: its answers are there once it has succeeded`);
    const file = await this.#itemsFile(job, options);
    for await (const line of textLines(await this.files.content(file, options))) yield parseAnswer(evalItemSchema, line, { path: `${id} ${ITEMS_FILE}` });
  }

  async #itemsFile(job: EvalJob, options: CallOptions): Promise<string> {
    for (const id of job.result_files) {
      if ((await this.files.get(id, options)).filename === ITEMS_FILE) return id;
    }
    throw new TunefleetError('not_found', `eval ${job.id} has no file ${ITEMS_FILE}: it may have been deleted`);
  }
}

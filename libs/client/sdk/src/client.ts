import { statusSchema, type StatusView } from '@tunefleet/contracts';
import { Transport, path, type CallOptions, type ClientOptions } from './http/transport';
import { Adapters } from './resources/adapters';
import { Evals } from './resources/evals';
import { Files } from './resources/files';
import { FineTuningJobs } from './resources/fine-tuning';
import { Jobs } from './resources/jobs';
import { Models } from './resources/models';
import { Retention } from './resources/retention';
import { Teams } from './resources/teams';
import { Usage } from './resources/usage';
import { Workers } from './resources/workers';

/**
 * A Tunefleet server's API. Answers are checked against the contract; failures are `TunefleetApiError`s. Requests are tried again after
 * 429 and 503, and, where doing them twice does no harm, after a cut connection.
 */
export class TunefleetClient {
  readonly files: Files;
  readonly fineTuning: { readonly jobs: FineTuningJobs };
  readonly jobs: Jobs;
  readonly evals: Evals;
  readonly adapters: Adapters;
  readonly models: Models;
  readonly retention: Retention;
  readonly teams: Teams;
  readonly usage: Usage;
  readonly workers: Workers;
  readonly #transport: Transport;

  constructor(options: ClientOptions) {
    const transport = (this.#transport = new Transport(options));
    this.files = new Files(transport);
    this.fineTuning = { jobs: new FineTuningJobs(transport) };
    this.jobs = new Jobs(transport);
    this.evals = new Evals(transport);
    this.adapters = new Adapters(transport);
    this.models = new Models(transport);
    this.retention = new Retention(transport);
    this.teams = new Teams(transport);
    this.usage = new Usage(transport);
    this.workers = new Workers(transport);
  }

  /** What the service is doing. */
  status({ signal }: CallOptions = {}): Promise<StatusView> {
    return this.#transport.json(statusSchema, { path: path('/api/v1', 'status'), signal });
  }
}

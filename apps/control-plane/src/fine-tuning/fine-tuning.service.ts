import { Inject, Injectable } from '@nestjs/common';
import { jobKinds, type FineTuneRequest } from '@tunefleet/contracts';
import { STOP_GRACE_MS } from '@tunefleet/domain-jobs';
import { newId, TunefleetError } from '@tunefleet/foundation';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import type { JobRecord, Page, RecordStore, TeamRecord } from '@tunefleet/ports';
import type { RepeatHints } from '../http/idempotency';
import { asSpec, hashRequest, JobSubmission, type JobOrigin, type Submitted } from '../jobs/job-submission';
import { ModelLookup } from '../jobs/model-lookup';
import { tunedModelName } from '../jobs/model-names';
import { RequestFiles } from '../jobs/request-files';
import { RECORD_STORE } from '../tokens';
import { settleRequest, type CreateJobBody } from './create-job';

export interface JobListFilter {
  readonly after?: string | undefined;
  readonly limit: number;
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
}

const KIND = 'fine-tune';
const DEFAULT_TUNER = { kind: 'lora' };

@Injectable()
export class FineTuningService {
  constructor(
    @Inject(RECORD_STORE) private readonly records: RecordStore,
    @Inject(ModelLookup) private readonly models: ModelLookup,
    @Inject(RequestFiles) private readonly files: RequestFiles,
    @Inject(JobSubmission) private readonly submission: JobSubmission,
  ) {}

  /** Checks what can be known at once; intake looks into the files and the model. @throws invalid_input, not_found */
  async create(team: TeamRecord, body: CreateJobBody, hints: RepeatHints, origin?: JobOrigin): Promise<Submitted> {
    const settled = settleRequest(body);
    const tuner = parseTunerSpec(body.tuner ?? DEFAULT_TUNER);
    const base = await this.models.baseOf(team.id, body.model, 'model');
    await this.files.require(team.id, body.training_file, 'training_file', ['fine-tune']);
    if (body.validation_file !== undefined) await this.files.require(team.id, body.validation_file, 'validation_file', ['fine-tune']);

    const id = newId('fineTuningJob');
    const requestHash = hashRequest(KIND, body, origin);
    const request: FineTuneRequest = {
      ...settled,
      model: body.model,
      fineTunedModel: tunedModelName({ base, team: team.name, suffix: settled.suffix, jobId: id }),
      trainingFile: body.training_file,
      validationFile: body.validation_file ?? null,
      tuner,
      asked: { hyperparameters: settled.hyperparameters, tuner: body.tuner ?? null, maxSequenceLength: settled.maxSequenceLength },
      requestHash,
    };
    return this.submission.submit(
      {
        ...{ id, teamId: team.id, kind: KIND, spec: asSpec(request), baseModel: base, metadata: body.metadata ?? null, priority: body.priority ?? 0, queue: jobKinds[KIND].queue },
        afterJobIds: [...new Set(body.after)],
        workerSelector: body.worker_selector ?? {},
        ...(origin === undefined ? {} : { source: origin }),
      },
      requestHash,
      hints,
    );
  }

  list(teamId: string, { after, limit, metadata }: JobListFilter): Promise<Page<JobRecord>> {
    return this.records.listJobs(teamId, { kind: KIND, limit, ...(after === undefined ? {} : { after }), ...(metadata === undefined ? {} : { metadata }) });
  }

  /** @throws not_found */
  async get(teamId: string, id: string): Promise<JobRecord> {
    const job = await this.records.getJob(teamId, id);
    if (job === null || job.kind !== KIND) throw noSuchJob(id);
    return job;
  }

  /** @throws not_found, illegal_transition */
  cancel(teamId: string, id: string): Promise<JobRecord> {
    return this.control(teamId, id, () => this.records.cancelJob(teamId, id));
  }

  /** @throws not_found, illegal_transition */
  pause(teamId: string, id: string): Promise<JobRecord> {
    return this.control(teamId, id, () => this.records.pauseJob(teamId, id, STOP_GRACE_MS));
  }

  /** @throws not_found, illegal_transition */
  resume(teamId: string, id: string): Promise<JobRecord> {
    return this.control(teamId, id, () => this.records.resumeJob(teamId, id));
  }

  private async control(teamId: string, id: string, change: () => Promise<JobRecord | null>): Promise<JobRecord> {
    await this.get(teamId, id);
    const job = await change();
    if (job === null) throw noSuchJob(id);
    return job;
  }
}

function noSuchJob(id: string): TunefleetError {
  return new TunefleetError('not_found', `no such fine-tuning job: '${id.slice(0, 100)}'. GET /v1/fine_tuning/jobs lists those there are`, { reason: 'job_not_found', param: 'fine_tuning_job_id' });
}

import { Inject, Injectable } from '@nestjs/common';
import { jobKinds, type createEvalSchema, type EvalRequest } from '@tunefleet/contracts';
import { newId, TunefleetError } from '@tunefleet/foundation';
import type { TeamRecord } from '@tunefleet/ports';
import type { z } from 'zod';
import type { RepeatHints } from '../http/idempotency';
import { asSpec, hashRequest, JobSubmission, type JobOrigin, type Submitted } from '../jobs/job-submission';
import { ModelLookup } from '../jobs/model-lookup';
import { RequestFiles } from '../jobs/request-files';

const KIND = 'eval';
/** Whatever holds rows with answers. */
const FILE_PURPOSES = ['evals', 'fine-tune', 'user_data'];

@Injectable()
export class EvalsService {
  constructor(
    @Inject(ModelLookup) private readonly models: ModelLookup,
    @Inject(RequestFiles) private readonly files: RequestFiles,
    @Inject(JobSubmission) private readonly submission: JobSubmission,
  ) {}

  /** @throws invalid_input, not_found */
  async create(team: TeamRecord, body: z.output<typeof createEvalSchema>, hints: RepeatHints, origin?: JobOrigin): Promise<Submitted> {
    const compareTo = body.compare_to ?? [];
    const base = await this.commonBase(team, body.model, compareTo);
    refuseRepeats('metric.labels', body.metric.type === 'label_likelihood' ? body.metric.labels : []);
    await this.files.require(team.id, body.file, 'file', FILE_PURPOSES);
    const requestHash = hashRequest(KIND, body, origin);
    const request: EvalRequest = {
      model: body.model,
      compareTo,
      file: body.file,
      metric: body.metric,
      limit: body.limit ?? null,
      samples: body.samples ?? 0,
      maxSequenceLength: body.max_seq_length ?? null,
      computeDtype: body.compute_dtype ?? 'auto',
      ...(body.base_quantisation === undefined ? {} : { baseQuantisation: { type: body.base_quantisation.type, doubleQuant: body.base_quantisation.double_quant } }),
      requestHash,
    };
    return this.submission.submit(
      {
        ...{ id: newId('evalJob'), teamId: team.id, kind: KIND, spec: asSpec(request), baseModel: base, metadata: body.metadata ?? null, priority: body.priority ?? 0, queue: jobKinds[KIND].queue },
        afterJobIds: [...new Set(body.after)],
        workerSelector: body.worker_selector ?? {},
        ...(origin === undefined ? {} : { source: origin }),
      },
      requestHash,
      hints,
    );
  }

  /** @throws invalid_input unless all stand on one base model and are named once */
  private async commonBase(team: TeamRecord, model: string, compareTo: readonly string[]): Promise<string> {
    const base = await this.models.baseOf(team.id, model, 'model');
    for (const [index, other] of compareTo.entries()) {
      const param = compareTo.length === 1 ? 'compare_to' : `compare_to.${index}`;
      const otherBase = await this.models.baseOf(team.id, other, param);
      if (otherBase !== base) {
        throw new TunefleetError('invalid_input', `'${other}' stands on ${otherBase}, but '${model}' on ${base}: an eval compares models on one base; make an eval for each base`, {
          reason: 'different_bases',
          param,
        });
      }
    }
    refuseRepeats('compare_to', [model, ...compareTo]);
    return base;
  }
}

function refuseRepeats(param: string, values: readonly string[]): void {
  const repeated = values.find((value, index) => values.indexOf(value) !== index);
  if (repeated !== undefined) throw new TunefleetError('invalid_input', `'${repeated}' is named twice: name it once`, { reason: 'invalid_value', param });
}

import { Inject, Injectable } from '@nestjs/common';
import type { CloneJob, JobKind } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { JobRecord, TeamRecord } from '@tunefleet/ports';
import { FineTuningService } from '../fine-tuning/fine-tuning.service';
import type { RepeatHints } from '../http/idempotency';
import { EvalsService } from '../native/evals.service';
import { copyEval, copyFineTune } from './copy-request';
import type { JobOrigin, Submitted } from './job-submission';

type Copier = (team: TeamRecord, job: JobRecord, copy: { readonly changes: CloneJob; readonly origin: JobOrigin; readonly hints: RepeatHints }) => Promise<Submitted>;

/** New jobs made from old ones. They are checked like any other request: a file or model may be gone. */
@Injectable()
export class JobCopies {
  private readonly copiers: Readonly<Record<JobKind, Copier>>;

  constructor(@Inject(FineTuningService) fineTunes: FineTuningService, @Inject(EvalsService) evals: EvalsService) {
    this.copiers = {
      'fine-tune': (team, job, { changes, origin, hints }) => fineTunes.create(team, copyFineTune(job, changes), hints, origin),
      eval: (team, job, { changes, origin, hints }) => evals.create(team, copyEval(job, changes), hints, origin),
    };
  }

  /** @throws invalid_input for changes that do not go with the job */
  clone(team: TeamRecord, job: JobRecord, changes: CloneJob, hints: RepeatHints): Promise<Submitted> {
    return this.copiers[job.kind](team, job, { changes, hints, origin: { jobId: job.id, relation: 'clone' } });
  }

  /** @throws illegal_transition unless it has failed or was cancelled */
  retry(team: TeamRecord, job: JobRecord, hints: RepeatHints): Promise<Submitted> {
    if (job.status !== 'failed' && job.status !== 'cancelled') {
      throw new TunefleetError('illegal_transition', `job ${job.id} is ${job.status}: only one that has failed or was cancelled can be retried; clone it to have it twice`, { details: { status: job.status } });
    }
    return this.copiers[job.kind](team, job, { changes: {}, hints, origin: { jobId: job.id, relation: 'retry' } });
  }
}

import { Inject, Injectable } from '@nestjs/common';
import type { JobDetail, JobKind } from '@tunefleet/contracts';
import { STOP_GRACE_MS } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { AttemptCompany, AttemptRecord, JobRecord, RecordStore } from '@tunefleet/ports';
import { companyView } from '../jobs/sharing-view';
import { RECORD_STORE } from '../tokens';
import { attemptView, jobSummary } from './views';

/** Jobs of every kind. */
@Injectable()
export class JobsService {
  constructor(@Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'getJob' | 'cancelJob' | 'pauseJob' | 'resumeJob' | 'setJobPriority' | 'listAttempts' | 'listCompany' | 'listWorkers' | 'getAdapterByJob'>) {}

  /** @throws not_found */
  async get(teamId: string, id: string, kind?: JobKind): Promise<JobRecord> {
    const job = await this.records.getJob(teamId, id);
    if (job === null || (kind !== undefined && job.kind !== kind)) throw noSuchJob(id, kind);
    return job;
  }

  /** @throws not_found, illegal_transition */
  async cancel(teamId: string, id: string, kind?: JobKind): Promise<JobRecord> {
    await this.get(teamId, id, kind);
    return there(await this.records.cancelJob(teamId, id), id);
  }

  /** @throws not_found, illegal_transition */
  async pause(teamId: string, id: string): Promise<JobRecord> {
    return there(await this.records.pauseJob(teamId, id, STOP_GRACE_MS), id);
  }

  /** @throws not_found, illegal_transition */
  async resume(teamId: string, id: string): Promise<JobRecord> {
    return there(await this.records.resumeJob(teamId, id), id);
  }

  /** @throws not_found, illegal_transition */
  async setPriority(teamId: string, id: string, priority: number): Promise<JobRecord> {
    return there(await this.records.setJobPriority(teamId, id, priority), id);
  }

  async detail(teamId: string, job: JobRecord): Promise<JobDetail> {
    const [attempts, company, adapter, workers] = await Promise.all([this.records.listAttempts(job.id), this.records.listCompany(job.id), this.records.getAdapterByJob(teamId, job.id), this.records.listWorkers()]);
    const names = new Map(workers.map(({ id, name }) => [id, name]));
    const companyOf = ({ id }: AttemptRecord): AttemptCompany => company.get(id) ?? { beside: [], gpuSeconds: 0 };
    const besideNow = attempts.filter(({ status }) => status !== 'finished').flatMap((attempt) => companyOf(attempt).beside.filter(({ isLive }) => isLive));
    return {
      ...jobSummary(job),
      spec: { ...job.spec },
      worker_spec: job.workerSpec === null ? null : { ...job.workerSpec },
      result: job.result === null ? null : { ...job.result },
      result_files: [...job.resultFileIds],
      adapter_id: adapter?.id ?? null,
      shares_worker_with: companyView(besideNow, teamId),
      attempts: attempts.map((attempt) => attemptView(attempt, { workerName: names.get(attempt.workerId) ?? attempt.workerId, teamId, company: companyOf(attempt) })),
    };
  }
}

function there(job: JobRecord | null, id: string): JobRecord {
  if (job === null) throw noSuchJob(id, undefined);
  return job;
}

function noSuchJob(id: string, kind: JobKind | undefined): TunefleetError {
  return new TunefleetError('not_found', `no such ${kind ?? ''}${kind === undefined ? '' : ' '}job: '${id.slice(0, 100)}'. GET /api/v1/jobs lists those there are`, { reason: 'job_not_found', param: 'id' });
}

import type { JobDetail } from '@tunefleet/contracts';
import { describeJob } from './job-detail';

type AttemptView = JobDetail['attempts'][number];

const attempt: AttemptView = {
  ...{ id: 'att-1', epoch: 1, worker_id: 'wrk-1', worker_name: 'gpu-3', slot: 2, status: 'running', outcome: null, error: null, stop_reason: null, step: 7 },
  ...{ micro_batch_size: 1, stuck: false, resume_checkpoint_id: null, assigned_at: 1_790_000_000, acknowledged_at: 1_790_000_001, finished_at: null },
  shared_worker_with: { jobs: ['ftjob-mine', 'ftjob-over'], other_teams_jobs: 2 },
  gpu_seconds: 41.6,
};
const job: JobDetail = {
  ...{ id: 'ftjob-1', object: 'job', kind: 'fine-tune', status: 'running', base_model: 'base', priority: 0, metadata: null, created_at: 1_790_000_000, queued_at: null, started_at: null, finished_at: null },
  ...{ estimated_finish: null, step: 7, total_steps: 10, phase: 'train', tokens_per_second: null, waiting_reason: null, waiting_code: null, queue_position: null, estimated_start: null, worker_selector: {} },
  ...{ memory_bytes_estimate: null, may_share_worker: true, after: [], source: null, stop_requested: null, error: null, spec: {}, worker_spec: null, result: null, result_files: [], adapter_id: null },
  shares_worker_with: { jobs: ['ftjob-mine'], other_teams_jobs: 1 },
  attempts: [attempt],
};
const nobody = { jobs: [], other_teams_jobs: 0 };

test('who is beside a job, who was beside its attempts, and what they are charged', () => {
  const text = describeJob(job);
  expect(text).toMatch(/worker +may be shared/);
  expect(text).toMatch(/beside it now +ftjob-mine, 1 of other teams/);
  expect(text).toMatch(/gpu-3 .* 42 +ftjob-mine, ftjob-over, 2 of other teams/);
});

test('a job alone, and one that is not validated yet', () => {
  const alone = describeJob({ ...job, may_share_worker: false, shares_worker_with: nobody, attempts: [{ ...attempt, shared_worker_with: nobody }] });
  expect(alone).toMatch(/worker +to itself/);
  expect(alone).not.toMatch(/beside it now|other teams/);
  expect(describeJob({ ...job, may_share_worker: null, shares_worker_with: nobody, attempts: [] })).not.toMatch(/^worker +/m);
});

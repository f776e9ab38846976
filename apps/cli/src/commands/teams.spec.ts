import { quotaOf } from './teams';

const team = { weight: 2, quotas: { running_jobs: 4, gpu_hours_per_month: null, queued_jobs: 100, storage_bytes: null } };

test('what is not given stays, "none" lifts a bound', () => {
  expect(quotaOf(team, {})).toEqual({ weight: 2, running_jobs: 4, queued_jobs: 100 });
  expect(quotaOf(team, { weight: 1, running: null, gpuHours: 50, storage: 0 })).toEqual({ weight: 1, gpu_hours_per_month: 50, queued_jobs: 100, storage_bytes: 0 });
});

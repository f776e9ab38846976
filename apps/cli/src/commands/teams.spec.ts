import { changesOf } from './teams';

test('what is not given is left out, "none" lifts a bound', () => {
  expect(changesOf({})).toEqual({});
  expect(changesOf({ weight: 1, running: null, gpuHours: 50, storage: 0, shareWorkers: false })).toEqual({ weight: 1, running_jobs: null, gpu_hours_per_month: 50, storage_bytes: 0, shares_workers: false });
});

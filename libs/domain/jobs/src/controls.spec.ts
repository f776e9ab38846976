import fc from 'fast-check';
import { isLost, skippedFailure, waitingForParents } from './dependencies';
import { cordonReason, defaultCordonRule } from './failing-worker';
import type { JobStatus } from './job-states';
import { statusAfterStop } from './stop-reasons';
import { defaultStuckRule, judgePace, stuckMessage } from './stuck';

describe('dependencies', () => {
  test('a job says which ones it waits for, up to three by name', () => {
    expect(waitingForParents([{ id: 'a', status: 'running' }])).toBe('waiting for a (running) to succeed');
    const many = ['a', 'b', 'c', 'd', 'e'].map((id) => ({ id, status: 'queued' as const }));
    expect(waitingForParents(many)).toBe('waiting for a (queued), b (queued), c (queued), 2 more to succeed');
  });

  test.each<[JobStatus, boolean]>([
    ['validating_files', false],
    ['queued', false],
    ['running', false],
    ['paused', false],
    ['succeeded', false],
    ['failed', true],
    ['cancelled', true],
  ])('a parent that is %s is lost: %s', (status, lost) => expect(isLost({ id: 'a', status })).toBe(lost));

  test('a skipped job names the parent and what became of it', () => {
    expect(skippedFailure({ id: 'ftjob-1', status: 'failed' })).toMatchObject({ class: 'user', code: 'parent_not_succeeded', message: expect.stringContaining('job ftjob-1, after which it was to run, has failed') });
    expect(skippedFailure({ id: 'ftjob-1', status: 'cancelled' }).message).toContain('was cancelled');
  });
});

describe('a failing worker', () => {
  const failures = (...jobs: string[]) => jobs.map((jobId) => ({ jobId, code: 'engine_crashed' }));

  test.each<[string, string[], boolean]>([
    ['nothing', [], false],
    ['too few', ['a', 'b'], false],
    ['one job that fails again and again', ['a', 'a', 'a', 'a', 'a'], false],
    ['enough of several jobs', ['a', 'a', 'b'], true],
  ])('%s: cordoned %s', (_what, jobs, cordoned) => expect(cordonReason(failures(...jobs), defaultCordonRule) !== null).toBe(cordoned));

  test('the reason has the numbers', () => {
    expect(cordonReason(failures('a', 'b', 'a'), defaultCordonRule)).toBe('automatic: 3 infrastructure failures of 2 jobs within 60 min, the last one engine_crashed');
  });

  test('a limit of 0 cordons none', () => {
    expect(cordonReason(failures('a', 'b', 'c', 'd'), { ...defaultCordonRule, failures: 0 })).toBeNull();
  });
});

describe('stuck', () => {
  test.each<[string, number, number | null, string]>([
    ['too few steps to tell', 10_000_000, null, 'goes_on'],
    ['fast steps, a short pause', 119_000, 10, 'goes_on'],
    ['fast steps, a long pause', 120_000, 10, 'stuck'],
    ['slow steps have more time', 1_000_000, 60_000, 'goes_on'],
    ['slow steps, stuck', 1_200_000, 60_000, 'stuck'],
    ['given up', 900_000, 10, 'give_up'],
    ['slow steps, given up', 6_000_000, 60_000, 'give_up'],
  ])('%s', (_what, sinceStepMs, medianStepMs, verdict) => expect(judgePace({ sinceStepMs, medianStepMs }, defaultStuckRule)).toBe(verdict));

  test('property: more silence is never judged more mildly, and giving up comes after noting', () => {
    const order = ['goes_on', 'stuck', 'give_up'];
    fc.assert(
      fc.property(fc.nat(10_000_000), fc.nat(10_000_000), fc.nat(600_000), (a, b, medianStepMs) => {
        const [less, more] = [Math.min(a, b), Math.max(a, b)].map((sinceStepMs) => order.indexOf(judgePace({ sinceStepMs, medianStepMs }, defaultStuckRule)));
        expect(more).toBeGreaterThanOrEqual(less ?? 0);
      }),
    );
  });

  test('the message has both times', () => expect(stuckMessage({ sinceStepMs: 125_400, medianStepMs: 340 })).toBe('no step for 125 s; its steps took 0.3 s before'));
});

test('only a pause leads to `paused`', () => {
  expect(([null, 'paused', 'resumed', 'preempted', 'drained'] as const).map(statusAfterStop)).toEqual(['queued', 'paused', 'queued', 'queued', 'queued']);
});

import fc from 'fast-check';
import { failureClassSchema } from '@tunefleet/contracts';
import type { JsonObject } from '@tunefleet/foundation';
import { afterStop, decideAfterFailure, retryBudgets, type EndedAttempt, type RetryableJob } from './after-failure';

const fresh: RetryableJob = { infraFailures: 0, resourceFailures: 0, workerSpec: { microBatchSize: 4, batchSize: 8 } };
const platform: EndedAttempt = { failure: { class: 'platform' } };
const infrastructure: EndedAttempt = { failure: { class: 'infrastructure' } };

test('a user failure ends the job at once', () => {
  expect(decideAfterFailure(fresh, { class: 'user' }, [])).toEqual({ then: 'fail' });
});

test('a resource failure is tried once more with half the micro batch', () => {
  expect(decideAfterFailure(fresh, { class: 'resource' }, [])).toEqual({
    then: 'retry',
    counts: 'resource',
    delayMs: 0,
    specPatch: { microBatchSize: 2 },
  });
  expect(decideAfterFailure({ ...fresh, resourceFailures: 1 }, { class: 'resource' }, [])).toEqual({ then: 'fail' });
});

test.each<[string, JsonObject | null, number | null, JsonObject | undefined]>([
  ['half of what the worker chose', { batchSize: 8 }, 3, { microBatchSize: 1 }],
  ['half of what the worker had lowered the limit to', { microBatchSize: 8, batchSize: 16 }, 4, { microBatchSize: 2 }],
  ['the batch stands in for a micro batch that was never told', { batchSize: 8 }, null, { microBatchSize: 4 }],
  ['a limit above the batch is none', { microBatchSize: 64, batchSize: 8 }, null, { microBatchSize: 4 }],
  ['odd sizes round down', { microBatchSize: 5, batchSize: 8 }, null, { microBatchSize: 2 }],
  ['one example cannot be halved', { microBatchSize: 1, batchSize: 8 }, null, undefined],
  ['a kind without batches is only tried again', { limit: 10 }, null, undefined],
  ['a job without a spec is only tried again', null, null, undefined],
])('resource: %s; the batch is left as it is', (_what, workerSpec, microBatchSize, specPatch) => {
  const after = decideAfterFailure({ ...fresh, workerSpec, microBatchSize }, { class: 'resource' }, []);
  expect(after.then === 'retry' ? after.specPatch : 'failed').toEqual(specPatch);
});

test('infrastructure failures are tried five times: at once, then 5 s doubling', () => {
  const answers = [0, 1, 2, 3, 4, 5].map((infraFailures) => decideAfterFailure({ ...fresh, infraFailures }, { class: 'infrastructure' }, []));
  expect(answers.map((after) => (after.then === 'retry' ? after.delayMs : 'fail'))).toEqual([0, 5_000, 10_000, 20_000, 40_000, 'fail']);
});

test('platform failures never fail the job; their delay grows with an unbroken run of them and is capped', () => {
  const after = (history: EndedAttempt[]) => decideAfterFailure({ ...fresh, infraFailures: 99, resourceFailures: 99 }, { class: 'platform' }, history);
  expect(after([])).toEqual({ then: 'retry', counts: 'none', delayMs: 5_000 });
  expect(after([platform, platform])).toEqual({ then: 'retry', counts: 'none', delayMs: 20_000 });
  expect(after([platform, platform, infrastructure])).toEqual({ then: 'retry', counts: 'none', delayMs: 5_000 });
  expect(after(Array.from({ length: 5000 }, () => platform))).toEqual({ then: 'retry', counts: 'none', delayMs: 900_000 });
});

test('a stop is no failure', () => {
  expect(afterStop).toEqual({ then: 'retry', counts: 'none', delayMs: 0 });
});

test('property: every delay lies within its class bound, budgets are never exceeded, a patch only makes the micro batch smaller', () => {
  const job = fc.record({
    infraFailures: fc.nat(20),
    resourceFailures: fc.nat(20),
    workerSpec: fc.option(fc.record({ batchSize: fc.integer({ min: 1, max: 256 }) })),
  });
  const history = fc.array(fc.record({ failure: fc.option(fc.record({ class: fc.constantFrom(...failureClassSchema.options) })) }), { maxLength: 40 });
  fc.assert(
    fc.property(job, fc.constantFrom(...failureClassSchema.options), history, (anyJob, failureClass, anyHistory) => {
      const after = decideAfterFailure(anyJob, { class: failureClass }, anyHistory);
      const budget = retryBudgets[failureClass];
      const spent = { user: 0, resource: anyJob.resourceFailures, infrastructure: anyJob.infraFailures, platform: 0 }[failureClass];
      expect(after.then).toBe(spent < budget.retries ? 'retry' : 'fail');
      if (after.then === 'fail') return;
      expect(after.delayMs).toBeGreaterThanOrEqual(0);
      expect(after.delayMs).toBeLessThanOrEqual(budget.maxDelayMs);
      const patched = after.specPatch?.['microBatchSize'];
      if (patched !== undefined) {
        expect(patched).toBeGreaterThanOrEqual(1);
        expect(patched).toBeLessThan(anyJob.workerSpec?.batchSize ?? 0);
      }
    }),
  );
});

test('property: any job whose attempts only fail for counted reasons ends within its budgets', () => {
  const counted = fc.constantFrom('resource' as const, 'infrastructure' as const);
  fc.assert(
    fc.property(fc.array(counted, { minLength: 7, maxLength: 30 }), (classes) => {
      let job = fresh;
      let attempts = 0;
      for (const failureClass of classes) {
        attempts++;
        const after = decideAfterFailure(job, { class: failureClass }, []);
        if (after.then === 'fail') break;
        if (after.counts === 'infrastructure') job = { ...job, infraFailures: job.infraFailures + 1 };
        if (after.counts === 'resource') job = { ...job, resourceFailures: job.resourceFailures + 1 };
      }
      expect(attempts).toBeLessThanOrEqual(7);
    }),
  );
});

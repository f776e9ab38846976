import fc from 'fast-check';
import { isTerminal, jobTransitions, nextStatus, sourcesOf, type JobStatus, type JobTransition } from './job-states';

const statuses = Object.keys(jobTransitions) as JobStatus[];
const transitions: JobTransition[] = ['validated', 'placed', 'requeued', 'succeeded', 'failed', 'cancelled', 'paused', 'resumed'];

test('exactly succeeded, failed and cancelled are terminal', () => {
  expect(statuses.filter(isTerminal)).toEqual(['succeeded', 'failed', 'cancelled']);
});

test('only a running job can succeed or be queued again', () => {
  expect(sourcesOf('succeeded')).toEqual(['running']);
  expect(sourcesOf('requeued')).toEqual(['running']);
});

test('an illegal change names both sides', () => {
  expect(() => nextStatus('succeeded', 'cancelled')).toThrow('a job that is succeeded cannot be cancelled');
});

test('property: no path of any transitions leaves a terminal state', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...transitions), { maxLength: 30 }), (path) => {
      let status: JobStatus = 'validating_files';
      let ended: JobStatus | null = null;
      for (const transition of path) {
        status = jobTransitions[status][transition] ?? status;
        if (ended !== null) expect(status).toBe(ended);
        if (isTerminal(status)) ended = status;
      }
      expect(statuses).toContain(status);
    }),
  );
});

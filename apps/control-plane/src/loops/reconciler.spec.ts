import { ManualClock, silentLogger } from '@tunefleet/foundation';
import type { AttemptRecord, FencedResult, FleetStore, JobRecord, QueueMessage } from '@tunefleet/ports';
import type { AttemptEndings } from '../fleet/attempt-endings';
import { Reconciler } from './reconciler';

const attempt = { id: 'att-1', jobId: 'ftjob-1', epoch: 4, workerId: 'wrk-1' } as AttemptRecord;
const job = { id: 'ftjob-1', kind: 'fine-tune' } as JobRecord;
const key = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 4 };

interface Damage {
  readonly expired?: boolean;
  readonly unacknowledged?: FencedResult;
  readonly unvalidated?: boolean;
  readonly silent?: number;
  readonly broken?: boolean;
}

function setUp(damage: Damage) {
  const done: string[] = [];
  const messages: QueueMessage[] = [];
  const clock = new ManualClock(1_000_000);
  const store = {
    listExpired: () => (damage.broken === true ? Promise.reject(new Error('database is away')) : Promise.resolve(damage.expired === true ? [{ attempt, job }] : [])),
    listUnacknowledgedOlderThan: () => Promise.resolve(damage.unacknowledged === undefined ? [] : [{ attempt, job }]),
    revoke: (revoked: object) => {
      done.push(`revoke ${JSON.stringify(revoked)}`);
      return Promise.resolve(damage.unacknowledged);
    },
    closeAttempt: () => {
      done.push('close');
      return Promise.resolve();
    },
    markSilentWorkers: (suspectMs: number, offlineMs: number) => {
      done.push(`silent ${suspectMs} ${offlineMs}`);
      return Promise.resolve(damage.silent ?? 0);
    },
    wake: (topic: string) => {
      done.push(`wake ${topic}`);
      return Promise.resolve();
    },
  } as unknown as FleetStore;
  const endings = {
    failed: (ended: object, failure: { code: string }, outcome: string) => {
      done.push(`${outcome} ${failure.code} ${JSON.stringify(ended)}`);
      return Promise.resolve('applied');
    },
  } as unknown as AttemptEndings;
  const reconciler = new Reconciler({
    store,
    endings,
    records: { listUnvalidatedJobs: () => Promise.resolve(damage.unvalidated === true ? [job] : []) },
    outbox: { prune: () => Promise.resolve(3) },
    queue: {
      add: (message) => {
        messages.push(message);
        return Promise.resolve();
      },
    },
    clock,
    logger: silentLogger,
  });
  return { reconciler, done, messages, clock };
}

test('an expired lease ends its attempt as lost', async () => {
  const { reconciler, done } = setUp({ expired: true });
  await reconciler.pass();
  expect(done).toContain(`lost worker_lost ${JSON.stringify(key)}`);
  expect(reconciler.repairs()).toMatchObject({ lease_expired: 1, assignment_revoked: 0 });
});

test('an assignment nobody acknowledged is taken back and the queue looked at again; a stale one is only closed', async () => {
  const live = setUp({ unacknowledged: 'applied' });
  await live.reconciler.pass();
  expect(live.done).toEqual([`revoke ${JSON.stringify(key)}`, 'wake schedule', 'silent 20000 30000']);
  const stale = setUp({ unacknowledged: 'stale' });
  await stale.reconciler.pass();
  expect(stale.done).toContain('close');
});

test('a job that intake forgot is announced once per period, under an id the queue does not know yet', async () => {
  const { reconciler, messages, clock } = setUp({ unvalidated: true });
  await reconciler.pass();
  await reconciler.pass();
  clock.advance(30_000);
  await reconciler.pass();
  const ids = messages.map((message) => message.id);
  expect(new Set(ids).size).toBe(2);
  expect(messages[0]).toMatchObject({ queue: 'tune', payload: { jobId: 'ftjob-1' } });
  expect(ids.every((id) => /^[A-Za-z0-9_-]+$/.test(id))).toBe(true);
});

test('a repair that fails is reported and keeps none of the others from running', async () => {
  const { reconciler, done } = setUp({ broken: true, silent: 2 });
  await expect(reconciler.pass()).rejects.toThrow('1 repairs failed');
  expect(done).toContain('silent 20000 30000');
  expect(reconciler.repairs()).toMatchObject({ worker_silent: 2, outbox_pruned: 3 });
});

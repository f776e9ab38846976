import { ManualClock, silentLogger } from '@tunefleet/foundation';
import type { AttemptRecord, FencedResult, FleetStore, JobRecord, QueueMessage, QuietAttempt } from '@tunefleet/ports';
import type { AttemptEndings } from '../fleet/attempt-endings';
import { Reconciler } from './reconciler';

const attempt = { id: 'att-1', jobId: 'ftjob-1', epoch: 4, workerId: 'wrk-1' } as AttemptRecord;
const job = { id: 'ftjob-1', kind: 'fine-tune' } as JobRecord;
const key = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 4 };

interface Damage {
  readonly expired?: boolean;
  readonly unacknowledged?: FencedResult;
  readonly unvalidated?: boolean;
  readonly silent?: readonly string[];
  readonly broken?: boolean;
  /** For how long there has been a control plane; default: for ever. */
  readonly watchedMs?: number;
  readonly drainsDue?: readonly string[];
  readonly orphans?: readonly string[];
  readonly overdueStops?: FencedResult;
  readonly unevaluated?: readonly string[];
  readonly outboxLagMs?: number;
  readonly quiet?: readonly QuietAttempt[];
}

function setUp(damage: Damage) {
  const done: string[] = [];
  const logged: object[] = [];
  const messages: QueueMessage[] = [];
  const clock = new ManualClock(1_000_000);
  const store = {
    keepWatch: (gapMs: number) => {
      done.push(`watch ${gapMs}`);
      return Promise.resolve(damage.watchedMs ?? Infinity);
    },
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
      return Promise.resolve(damage.silent ?? []);
    },
    stopDrained: () => Promise.resolve(damage.drainsDue ?? []),
    listQuiet: (quietMs: number) => Promise.resolve((damage.quiet ?? []).filter(({ sinceStepMs }) => sinceStepMs > quietMs)),
    noteStuck: (_key: object, message: string) => {
      done.push(`stuck ${message}`);
      return Promise.resolve(true);
    },
    skipOrphans: () => Promise.resolve(damage.orphans ?? []),
    listOverdueStops: () => Promise.resolve(damage.overdueStops === undefined ? [] : [attempt]),
    listUnevaluated: () => Promise.resolve(damage.unevaluated ?? []),
    explainDependents: () => Promise.resolve(),
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
    stopped: (ended: object) => {
      done.push(`stopped ${JSON.stringify(ended)}`);
      return Promise.resolve(damage.overdueStops);
    },
  } as unknown as AttemptEndings;
  const reconciler = new Reconciler({
    store,
    endings,
    records: { listUnvalidatedJobs: () => Promise.resolve(damage.unvalidated === true ? [job] : []) },
    outbox: {
      lagMs: () => Promise.resolve(damage.outboxLagMs ?? 0),
      relay: async (_limit, publish) => {
        await publish({ id: 'row-1', queue: 'tune', messageId: 'message-1', payload: {} });
        return 1;
      },
    },
    queue: {
      add: (message) => {
        messages.push(message);
        return Promise.resolve();
      },
    },
    clock,
    logger: { ...silentLogger, info: (fields: object) => logged.push(fields) },
  });
  return { reconciler, done, messages, logged, clock };
}

test('an expired lease ends its attempt as lost', async () => {
  const { reconciler, done } = setUp({ expired: true });
  await reconciler.pass();
  expect(done).toContain(`lost worker_lost ${JSON.stringify(key)}`);
  expect(reconciler.repairs()).toMatchObject({ lease_expired: 1, assignment_revoked: 0 });
});

test('after the record was away, workers have the time to come back before their leases are taken', async () => {
  const damage = { expired: true, broken: true };
  const { reconciler, clock } = setUp(damage);
  await expect(reconciler.pass()).rejects.toThrow();
  damage.broken = false;
  // However late the next pass is: only now could anybody be heard again.
  clock.advance(60_000);
  await reconciler.pass();
  clock.advance(14_999);
  await reconciler.pass();
  expect(reconciler.repairs().lease_expired).toBe(0);
  clock.advance(1);
  await reconciler.pass();
  expect(reconciler.repairs().lease_expired).toBe(1);
});

test('a control plane that is there after none was gives workers the time to come back; one that joins others does not', async () => {
  const quiet = [{ attempt: { ...attempt, stuckAt: null }, sinceStepMs: 1_000_000, medianStepMs: 10_000 }];
  const damage = { expired: true, quiet, overdueStops: 'applied' as const, watchedMs: 14_999 };
  const { reconciler, done } = setUp(damage);
  await reconciler.pass();
  expect(done).toEqual(['watch 15000', 'silent 20000 30000']);
  damage.watchedMs = 15_000;
  await reconciler.pass();
  expect(reconciler.repairs()).toMatchObject({ lease_expired: 1, stuck_given_up: 1, stop_overdue: 1 });
});

test('an assignment nobody acknowledged is taken back and the queue looked at again; a stale one is only closed', async () => {
  const live = setUp({ unacknowledged: 'applied' });
  await live.reconciler.pass();
  expect(live.done).toEqual(['watch 15000', `revoke ${JSON.stringify(key)}`, 'wake schedule', 'silent 20000 30000']);
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

test.each<[string, number, number | null, string | null, object]>([
  ['too early to tell', 3_600_000, null, null, {}],
  ['a short silence', 121_000, 10_000, null, {}],
  ['a long one', 300_000, 10_000, 'stuck no step for 300 s; its steps took 10.0 s before', { stuck_noted: 1, stuck_given_up: 0 }],
  ['a hopeless one', 1_000_000, 10_000, `failed stuck ${JSON.stringify(key)}`, { stuck_noted: 0, stuck_given_up: 1 }],
])('an attempt whose steps do not come: %s', async (_what, sinceStepMs, medianStepMs, did, repairs) => {
  const { reconciler, done } = setUp({ quiet: [{ attempt: { ...attempt, stuckAt: null }, sinceStepMs, medianStepMs }] });
  await reconciler.pass();
  expect(done.filter((line) => line.includes('stuck'))).toEqual(did === null ? [] : [did]);
  expect(reconciler.repairs()).toMatchObject(repairs);
});

test('what was noted as stuck is not noted again; drains and orphans are counted', async () => {
  const { reconciler, done } = setUp({ drainsDue: ['a', 'b'], orphans: ['c'], quiet: [{ attempt: { ...attempt, stuckAt: new Date() }, sinceStepMs: 300_000, medianStepMs: 10_000 }] });
  await reconciler.pass();
  expect(done.filter((line) => line.includes('stuck'))).toEqual([]);
  expect(reconciler.repairs()).toMatchObject({ drain_due: 2, orphans_skipped: 1, stuck_noted: 0 });
});

test('a repair that fails is reported and keeps none of the others from running', async () => {
  const { reconciler, done } = setUp({ broken: true, silent: ['w-1', 'w-2'] });
  await expect(reconciler.pass()).rejects.toThrow('1 repairs failed');
  expect(done).toContain('silent 20000 30000');
  expect(reconciler.repairs()).toMatchObject({ worker_silent: 2 });
});

test.each([
  ['applied', 1],
  ['stale', 0],
] as const)('a job that is not handed back in time is taken back, if it still is the attempt\'s: %s', async (overdueStops, counted) => {
  const { reconciler, done } = setUp({ overdueStops });
  await reconciler.pass();
  expect(done).toContain(`stopped ${JSON.stringify(key)}`);
  expect(reconciler.repairs()).toMatchObject({ stop_overdue: counted });
});

test('jobs nobody looked at from one pass to the next are announced to the schedulers, once for all', async () => {
  const { reconciler, done } = setUp({ unevaluated: ['a', 'b'] });
  await reconciler.pass();
  expect(reconciler.repairs()).toMatchObject({ job_unevaluated: 0 });
  await reconciler.pass();
  expect(done.filter((line) => line === 'wake schedule')).toHaveLength(1);
  expect(reconciler.repairs()).toMatchObject({ job_unevaluated: 2 });
});

test.each([
  [29_999, 0],
  [30_000, 1],
])('messages that wait for %d ms are handed on: %d', async (outboxLagMs, relayed) => {
  const { reconciler, messages } = setUp({ outboxLagMs });
  await reconciler.pass();
  expect(messages.map(({ id }) => id)).toEqual(relayed === 0 ? [] : ['message-1']);
  expect(reconciler.repairs()).toMatchObject({ outbox_stale: relayed });
});

test('every repair is logged once, with its kind and what it was made on', async () => {
  const { reconciler, logged } = setUp({ expired: true, drainsDue: ['a', 'b'], silent: ['w-1'] });
  await reconciler.pass();
  expect(logged).toEqual([
    { repair: 'lease_expired', total: 1, attemptId: 'att-1', jobId: 'ftjob-1', workerId: 'wrk-1' },
    { repair: 'worker_silent', total: 1, workerId: 'w-1' },
    { repair: 'drain_due', total: 1, jobId: 'a' },
    { repair: 'drain_due', total: 2, jobId: 'b' },
  ]);
});

import type { Placement, Plan, Preemption, Snapshot, WaitingJob } from '@tunefleet/domain-scheduling';
import { silentLogger } from '@tunefleet/foundation';
import type { AttemptRecord, WakeTopic } from '@tunefleet/ports';
import { Scheduler } from './scheduler';

const placement = (n: number): Placement => ({ jobId: `job-${n}`, jobEpoch: 0, workerId: `wrk-${n}`, workerBootId: 'b', workerSessionId: 's', workerSlots: 1, resumeCheckpointId: null, besideJobIds: [] });
const preemption: Preemption = { victims: [{ jobId: 'job-9', attemptId: 'att-9', epoch: 1 }], workerId: 'wrk-9', forJobId: 'job-3', deadlineMs: 120_000 };
const waits = (position: number, changes: Partial<WaitingJob> = {}): WaitingJob => ({ code: 'workers_busy', text: 'waiting', position, estimatedStartMs: null, ...changes });
const snapshot: Snapshot = { nowMs: 100, jobs: [{ id: 'job-1' } as Snapshot['jobs'][number]], workers: [], running: [], teams: [], jobsNotShown: 0 };
const emptyPlan: Plan = { placements: [], preemptions: [], waiting: new Map(), lookAgainAtMs: null };

/** @param changed jobs whose placement the store refuses because something changed since the snapshot */
function setUp(first: Partial<Plan>, changed: readonly string[] = [], seen: Snapshot = snapshot) {
  const calls = { limits: [] as number[], placed: [] as string[], preempted: [] as string[], noted: [] as (readonly [string, WaitingJob])[][], wakes: [] as WakeTopic[], planned: 0 };
  const world = { plan: { ...emptyPlan, ...first }, monotonicMs: 0 };
  const scheduler = new Scheduler({
    store: {
      schedulingSnapshot: (limit) => {
        calls.limits.push(limit);
        return Promise.resolve(seen);
      },
      place: (wanted) => {
        if (changed.includes(wanted.jobId)) return Promise.resolve(null);
        calls.placed.push(wanted.jobId);
        return Promise.resolve({ id: 'att', jobId: wanted.jobId, epoch: 1, workerId: wanted.workerId } as AttemptRecord);
      },
      preempt: ({ victims }) => {
        calls.preempted.push(...victims.map(({ jobId }) => jobId));
        return Promise.resolve('stale');
      },
      noteWaiting: (waiting) => {
        calls.noted.push([...waiting]);
        return Promise.resolve();
      },
      wake: (topic) => {
        calls.wakes.push(topic);
        return Promise.resolve();
      },
    },
    plan: () => {
      calls.planned++;
      return world.plan;
    },
    leaseMs: 30_000,
    clock: { monotonic: () => world.monotonicMs },
    logger: silentLogger,
  });
  return { scheduler, calls, world };
}

test('each placement is applied and its worker woken; the others are asked to make room or told why they wait', async () => {
  const { scheduler, calls } = setUp({ placements: [placement(1), placement(2)], preemptions: [preemption], waiting: new Map([['job-3', waits(1)]]), lookAgainAtMs: 350 });
  expect(await scheduler.pass()).toEqual({ placed: 2, lookAgainInMs: 250 });
  expect(calls).toMatchObject({ placed: ['job-1', 'job-2'], preempted: ['job-9'], wakes: [], noted: [[['job-3', waits(1)]]] });
});

test('a placement that no longer fits is dropped and the queue looked at again', async () => {
  const { scheduler, calls } = setUp({ placements: [placement(1), placement(2)] }, ['job-1']);
  expect((await scheduler.pass()).placed).toBe(1);
  expect(calls.wakes).toEqual(['schedule']);
});

test('with jobs beyond the snapshot it goes on while it finds room, and no longer', async () => {
  const more = { ...snapshot, jobsNotShown: 5 };
  const room = setUp({ placements: [placement(1)] }, [], more);
  await room.scheduler.pass();
  expect(room.calls.wakes).toContain('schedule');
  const full = setUp({ waiting: new Map([['job-1', waits(1)]]) }, [], more);
  await full.scheduler.pass();
  expect(full.calls.wakes).toEqual([]);
});

test('an empty queue is not planned', async () => {
  const { scheduler, calls } = setUp({}, [], { ...snapshot, jobs: [] });
  expect(await scheduler.pass()).toEqual({ placed: 0, lookAgainInMs: null });
  expect(calls.planned).toBe(0);
});

test('reasons are told at once, places in the queue now and then', async () => {
  const { scheduler, calls, world } = setUp({ waiting: new Map([['a', waits(1)], ['b', waits(2)]]) });
  await scheduler.pass();
  const moved = new Map([['a', waits(3)], ['b', waits(4, { code: 'quota', text: 'quota' })], ['c', waits(5)]]);
  world.plan = { ...emptyPlan, waiting: moved };
  await scheduler.pass();
  await scheduler.pass();
  expect(calls.noted.slice(1).map((entries) => entries.map(([id]) => id))).toEqual([['b', 'c']]);
  world.monotonicMs = 5_000;
  await scheduler.pass();
  expect(calls.noted.at(-1)).toEqual([['a', waits(3)]]);
  expect(calls.limits).toEqual([10_000, 1_000, 1_000, 10_000]);
});

test('what is told again: a start that moved noticeably, a place that moved by more than a fiftieth, all of it once a minute', async () => {
  const { scheduler, calls, world } = setUp({ waiting: new Map([['near', waits(10, { estimatedStartMs: 1_000_000 })], ['far', waits(1000)]]) });
  const later = async (waiting: ReadonlyMap<string, WaitingJob>, ms = 5_000) => {
    world.monotonicMs += ms;
    world.plan = { ...emptyPlan, waiting };
    const before = calls.noted.length;
    await scheduler.pass();
    return calls.noted.slice(before).flatMap((entries) => entries.map(([id]) => id));
  };
  await scheduler.pass();
  expect(await later(new Map([['near', waits(10, { estimatedStartMs: 1_015_000 })], ['far', waits(985)]]))).toEqual([]);
  expect(await later(new Map([['near', waits(10, { estimatedStartMs: 1_021_000 })], ['far', waits(970)]]))).toEqual(['near', 'far']);
  expect(await later(new Map([['near', waits(9, { estimatedStartMs: null })], ['far', waits(970)]]))).toEqual(['near']);
  expect(await later(new Map([['near', waits(9, { estimatedStartMs: null })], ['far', waits(970)]]), 60_000)).toEqual(['near', 'far']);
});

test('a job that comes back is told again, though nothing has changed for it', async () => {
  const { scheduler, calls, world } = setUp({ waiting: new Map([['job-1', waits(1)]]) });
  await scheduler.pass();
  world.plan = { ...emptyPlan, placements: [placement(1)] };
  await scheduler.pass();
  world.plan = { ...emptyPlan, waiting: new Map([['job-1', waits(1)]]) };
  await scheduler.pass();
  expect(calls.noted.map((entries) => entries.map(([id]) => id))).toEqual([['job-1'], ['job-1']]);
});

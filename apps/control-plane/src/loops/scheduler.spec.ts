import type { Placement, Plan, Snapshot } from '@tunefleet/domain-scheduling';
import { silentLogger } from '@tunefleet/foundation';
import type { AttemptRecord, WakeTopic } from '@tunefleet/ports';
import { schedulePass, type SchedulerDeps } from './scheduler';

const placement = (n: number): Placement => ({ jobId: `job-${n}`, jobEpoch: 0, workerId: `wrk-${n}`, workerBootId: 'b', workerSessionId: 's', resumeCheckpointId: null });
const snapshot: Snapshot = { nowMs: 0, jobs: [{ id: 'job-1' } as Snapshot['jobs'][number]], workers: [], jobsNotShown: 0 };

/** @param changed jobs whose placement the store refuses because something changed since the snapshot */
function setUp(plan: Plan, changed: readonly string[] = [], seen: Snapshot = snapshot) {
  const calls = { placed: [] as string[], reasons: new Map<string, string>(), wakes: [] as WakeTopic[], planned: 0 };
  const deps: SchedulerDeps = {
    store: {
      schedulingSnapshot: () => Promise.resolve(seen),
      place: (wanted) => {
        if (changed.includes(wanted.jobId)) return Promise.resolve(null);
        calls.placed.push(wanted.jobId);
        return Promise.resolve({ id: 'att', jobId: wanted.jobId, epoch: 1, workerId: wanted.workerId } as AttemptRecord);
      },
      setWaitingReasons: (reasons) => {
        calls.reasons = new Map(reasons);
        return Promise.resolve();
      },
      wake: (topic) => {
        calls.wakes.push(topic);
        return Promise.resolve();
      },
    },
    plan: () => {
      calls.planned++;
      return plan;
    },
    leaseMs: 30_000,
    logger: silentLogger,
  };
  return { deps, calls };
}

test('each placement is applied and its worker woken; the rest gets its reason', async () => {
  const { deps, calls } = setUp({ placements: [placement(1), placement(2)], reasons: new Map([['job-3', 'waiting for a worker']]) });
  expect(await schedulePass(deps)).toBe(2);
  expect(calls.placed).toEqual(['job-1', 'job-2']);
  expect(calls.wakes).toEqual(['worker:wrk-1', 'worker:wrk-2']);
  expect([...calls.reasons]).toEqual([['job-3', 'waiting for a worker']]);
});

test('a placement that no longer fits is dropped and the queue looked at again', async () => {
  const { deps, calls } = setUp({ placements: [placement(1), placement(2)], reasons: new Map() }, ['job-1']);
  expect(await schedulePass(deps)).toBe(1);
  expect(calls.wakes).toEqual(['worker:wrk-2', 'schedule']);
});

test('with jobs beyond the snapshot it goes on while it finds room, and no longer', async () => {
  const more = { ...snapshot, jobsNotShown: 5 };
  const room = setUp({ placements: [placement(1)], reasons: new Map() }, [], more);
  await schedulePass(room.deps);
  expect(room.calls.wakes).toContain('schedule');
  const full = setUp({ placements: [], reasons: new Map([['job-1', 'no worker']]) }, [], more);
  await schedulePass(full.deps);
  expect(full.calls.wakes).toEqual([]);
});

test('an empty queue is not planned', async () => {
  const { deps, calls } = setUp({ placements: [], reasons: new Map() }, [], { ...snapshot, jobs: [] });
  expect(await schedulePass(deps)).toBe(0);
  expect(calls.planned).toBe(0);
});

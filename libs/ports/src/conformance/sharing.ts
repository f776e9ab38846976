import type { Failure } from '@tunefleet/contracts';
import type { Completion, FleetStore } from '../fleet-store';
import type { RecordStore } from '../record-store';
import { keyOf, LEASE_MS, StoreSteps, type StoreUnderTest } from './store-under-test';

const done: Completion = { result: {}, artifacts: [], resultFiles: [], messages: [] };
const crashed: Failure = { class: 'infrastructure', code: 'engine_crashed', message: 'the engine died', param: null, logTail: [] };
const retry = { then: 'retry', counts: 'infrastructure', delayMs: 0 } as const;

/** What a store must do where several jobs run on one worker. Call at the top level of a spec file. @param open an empty store, closed by the suite */
export function sharingConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`sharing a worker: ${name}`, () => {
    let steps: StoreSteps;
    let fleet: FleetStore;
    let records: RecordStore;
    beforeEach(async () => {
      steps = await StoreSteps.of(await open());
      ({ fleet, records } = steps.store);
    });
    afterEach(() => steps.store.close());

    const shareable = async (key = 'base r1', memoryBytes = 100, teamId = steps.teamId): Promise<string> => {
      const id = await steps.create({ teamId });
      await steps.admit(id, {}, { sharing: { key, memoryBytes } });
      return id;
    };
    /** A worker with so many slots and credit for as many jobs. */
    const worker = async (id = 'w', slots = 3): Promise<void> => {
      await steps.credit(id, await steps.worker(id, { slots }), slots);
    };
    const place = async (jobId: string, beside: readonly string[] = [], workerId = 'w') => fleet.place(await steps.placement(jobId, workerId, beside), LEASE_MS);
    const placed = async (jobId: string, beside: readonly string[] = []) => {
      const attempt = await place(jobId, beside);
      if (attempt === null) throw new Error(`could not place ${jobId} beside ${beside.join(', ')}`);
      await fleet.acknowledge(keyOf(attempt));
      return attempt;
    };
    const live = async (workerId = 'w') => (await fleet.listLiveAttempts(workerId)).map(({ jobId, slot }) => [jobId, slot] as const).sort(([, a], [, b]) => a - b);

    test('the snapshot shows slots and keys; a worker says its slots anew with every Hello', async () => {
      await worker('w', 4);
      const [a, alone] = [await shareable('k', 70), await steps.queued()];
      expect(await fleet.schedulingSnapshot(10)).toMatchObject({
        workers: [{ id: 'w', slots: 4, credit: 4, busy: false }],
        jobs: [{ id: a, shareKey: 'k', sharedMemoryBytes: 70 }, { id: alone, shareKey: null, sharedMemoryBytes: null }],
      });
      await placed(a);
      expect(await fleet.schedulingSnapshot(10)).toMatchObject({
        workers: [{ slots: 4, credit: 3, busy: true }],
        running: [{ jobId: a, workerId: 'w', shareKey: 'k', sharedMemoryBytes: 70, memoryBytesEstimate: 1000, memoryCorrection: 1 }],
      });
      await steps.worker('w', { slots: 1, bootId: 'boot-2' });
      expect((await fleet.schedulingSnapshot(10)).workers).toMatchObject([{ slots: 1 }]);
      expect(await records.listWorkers()).toMatchObject([{ id: 'w', slots: 1 }]);
    });

    test('jobs of one key fill the lowest free slots, and no more than there are', async () => {
      await worker();
      const [a, b, c, d] = [await shareable(), await shareable(), await shareable(), await shareable()];
      const first = await placed(a);
      await placed(b, [a]);
      expect(await live()).toEqual([[a, 0], [b, 1]]);
      await fleet.complete(keyOf(first), done);
      await placed(c, [b]);
      expect(await live()).toEqual([[c, 0], [b, 1]]);
      await steps.credit('w', undefined, 3);
      await placed(d, [b, c]);
      const e = await shareable();
      await steps.credit('w', undefined, 3);
      expect(await place(e, [b, c, d])).toBeNull();
      expect(await live()).toEqual([[c, 0], [b, 1], [d, 2]]);
    });

    test.each<[string, { key?: string | null; beside?: boolean; credit?: number; slots?: number }]>([
      ['another key', { key: 'other' }],
      ['no key', { key: null }],
      ['one that was not seen there', { beside: false }],
      ['no credit', { credit: 0 }],
      ['a single slot', { slots: 1 }],
    ])('a job does not come to others with %s', async (_what, { key = 'k', beside = true, credit = 2, slots = 3 }) => {
      await worker('w', slots);
      const [a, b] = [await shareable('k'), key === null ? await steps.queued() : await shareable(key)];
      await placed(a);
      await steps.credit('w', undefined, credit);
      expect(await place(b, beside ? [a] : [])).toBeNull();
      expect(await steps.status(b)).toBe('queued');
      expect(await live()).toEqual([[a, 0]]);
    });

    test('a job that runs alone keeps others away, whoever they are', async () => {
      await worker();
      const [alone, a] = [await steps.queued(), await shareable()];
      await placed(alone);
      expect(await place(a, [alone])).toBeNull();
      expect(await live()).toEqual([[alone, 0]]);
    });

    test('what is asked for at once: all that fit together, each in a slot of its own; of those that do not, one', async () => {
      await worker('w', 3);
      const together = [await shareable(), await shareable(), await shareable(), await shareable()];
      const wanted = await Promise.all(together.map((id) => steps.placement(id, 'w', together.filter((other) => other !== id))));
      const attempts = await Promise.all(wanted.map((placement) => fleet.place(placement, LEASE_MS)));
      expect(attempts.map((attempt) => attempt?.slot ?? null)).toEqual([0, 1, 2, null]);
      await worker('v', 3);
      const apart = [await shareable(), await shareable(), await steps.queued()];
      const strangers = await Promise.all(apart.map((id) => steps.placement(id, 'v')));
      expect((await Promise.all(strangers.map((placement) => fleet.place(placement, LEASE_MS)))).filter((attempt) => attempt !== null)).toHaveLength(1);
      expect(await live('v')).toHaveLength(1);
    });

    test('the attempt of a cancelled job holds its slot until the worker has let go of it', async () => {
      await worker('w', 2);
      const [a, b, c] = [await shareable(), await shareable(), await shareable()];
      const first = await placed(a);
      await records.cancelJob(steps.teamId, a);
      await placed(b, [a]);
      await steps.credit('w', undefined, 2);
      expect(await place(c, [a, b])).toBeNull();
      expect(await fleet.listStopRequests('w')).toMatchObject([{ key: keyOf(first), reason: 'cancelled' }]);
      await fleet.closeAttempt(keyOf(first), 'stopped');
      await placed(c, [b]);
      expect(await live()).toEqual([[c, 0], [b, 1]]);
    });

    test('each is told of, stopped, renewed and ended for itself', async () => {
      await worker();
      const [a, b, c] = [await shareable(), await shareable(), await shareable()];
      const [first, second] = [keyOf(await placed(a)), keyOf(await placed(b, [a]))];
      const third = await place(c, [a, b]);
      expect((await fleet.listUnacknowledged('w')).map(({ job }) => job.id)).toEqual([c]);
      await records.pauseJob(steps.teamId, a, LEASE_MS);
      expect(await fleet.listStopRequests('w')).toMatchObject([{ key: first, reason: 'paused' }]);
      expect(await fleet.renewLease(second, LEASE_MS)).toBe('applied');
      await fleet.endAttempt(first, { outcome: 'stopped', failure: null, after: { ...retry, counts: 'none' } });
      expect([await steps.status(a), await steps.status(b), await steps.status(c)]).toEqual(['paused', 'running', 'running']);
      if (third !== null) await fleet.revoke(keyOf(third), 'busy');
      expect(await fleet.complete(second, done)).toBe('applied');
      expect([await steps.status(b), await steps.status(c), (await live()).length]).toEqual(['succeeded', 'queued', 0]);
      const { workers } = await fleet.schedulingSnapshot(10);
      expect(workers).toMatchObject([{ busy: false, idleSinceMs: expect.any(Number) as number }]);
      expect((await fleet.schedulingSnapshot(10)).jobs.find(({ id }) => id === c)).toMatchObject({ shareKey: 'base r1' });
    });

    test('after a failure a job runs alone, until an attempt of it has ended otherwise', async () => {
      await worker();
      const [a, b] = [await shareable(), await shareable()];
      const [first] = [keyOf(await placed(a)), keyOf(await placed(b, [a]))];
      const keyNow = async () => [...(await fleet.schedulingSnapshot(10)).jobs.map(({ id, shareKey }) => ({ id, shareKey })), ...(await fleet.schedulingSnapshot(10)).running.map(({ jobId, shareKey }) => ({ id: jobId, shareKey }))].find(({ id }) => id === a)?.shareKey;
      expect(await keyNow()).toBe('base r1');
      await fleet.endAttempt(first, { outcome: 'failed', failure: crashed, after: retry });
      expect(await keyNow()).toBeNull();
      await worker('v');
      const again = await place(a, [], 'v');
      expect(await keyNow()).toBeNull();
      if (again !== null) await fleet.endAttempt(keyOf(again), { outcome: 'stopped', failure: null, after: { ...retry, counts: 'none' } });
      expect(await keyNow()).toBe('base r1');
    });

    test('an engine that takes several down has failed once', async () => {
      await worker();
      const [a, b, c] = [await shareable(), await shareable(), await shareable()];
      const keys = [keyOf(await placed(a)), keyOf(await placed(b, [a])), keyOf(await placed(c, [a, b]))];
      for (const key of keys) await fleet.endAttempt(key, { outcome: 'failed', failure: crashed, after: retry });
      expect(await fleet.listInfraFailures('w', 3_600_000)).toEqual([{ jobId: a, code: 'engine_crashed' }]);
      await steps.credit('w', undefined, 3);
      await fleet.endAttempt(keyOf(await placed(b)), { outcome: 'failed', failure: crashed, after: retry });
      expect(await fleet.listInfraFailures('w', 3_600_000)).toHaveLength(2);
    });

    test('what a job beside others took tells nothing of its own memory', async () => {
      await worker();
      const memoryModel = { fixedBytes: 1000, rowBytes: 100 };
      const measured = async (beside: readonly string[]) => {
        const id = await steps.create();
        await steps.admit(id, {}, { shape: 's', memoryModel, sharing: { key: 'base r1', memoryBytes: 100 } });
        await steps.credit('w', undefined, 3);
        const key = keyOf(await placed(id, beside));
        await fleet.appendEvents(key, [{ seq: 1, type: 'progress', step: 1, totalSteps: 10, phase: 'train', tokensPerSecond: 1, etaSeconds: 1, microBatchSize: 10 }]);
        await fleet.complete(key, { ...done, result: { peakDeviceBytes: 3000 } });
      };
      const neighbour = await shareable();
      const key = keyOf(await placed(neighbour));
      await measured([neighbour]);
      expect(await records.memoryCorrection('s')).toBe(1);
      await fleet.complete(key, done);
      await measured([]);
      expect(await records.memoryCorrection('s')).toBe(1.5);
    });

    test('draining a worker reaches all jobs on it', async () => {
      await worker();
      const [a, b] = [await shareable(), await shareable()];
      await placed(a);
      await placed(b, [a]);
      await records.drainWorker('w', { mode: 'move', graceMs: LEASE_MS });
      expect((await fleet.listStopRequests('w')).map(({ key, reason }) => [key.jobId, reason]).sort()).toEqual([[a, 'preempted'], [b, 'preempted']].sort());
      expect([...(await records.countLiveAttempts())]).toEqual([['w', 2]]);
    });

    describe('making room', () => {
      const preempt = (attempts: readonly Awaited<ReturnType<typeof placed>>[], forJobId: string) => fleet.preempt({ victims: attempts.map(keyOf), workerId: 'w', forJobId, deadlineMs: 60_000 });

      test('all are asked together, and nobody comes to them meanwhile', async () => {
        await worker();
        const [a, b, c, urgent] = [await shareable(), await shareable(), await shareable(), await steps.queued({ priority: 60 })];
        const [first, second] = [await placed(a), await placed(b, [a])];
        expect(await preempt([first, second], urgent)).toBe('applied');
        expect(await preempt([first, second], urgent)).toBe('stale');
        expect((await fleet.listStopRequests('w')).map(({ key, reason }) => [key.jobId, reason]).sort()).toEqual([[a, 'preempted'], [b, 'preempted']].sort());
        expect((await fleet.schedulingSnapshot(10)).running.map(({ preemptedForJobId, preemptions }) => [preemptedForJobId, preemptions])).toEqual([[urgent, 1], [urgent, 1]]);
        expect(await place(c, [a, b])).toBeNull();
        await fleet.endAttempt(keyOf(first), { outcome: 'stopped', failure: null, after: { ...retry, counts: 'none' } });
        expect(await place(c, [b])).toBeNull();
      });

      test('nobody is asked where another has come since it was planned', async () => {
        await worker();
        const [a, b, urgent] = [await shareable(), await shareable(), await steps.queued({ priority: 60 })];
        const first = await placed(a);
        await placed(b, [a]);
        expect(await preempt([first], urgent)).toBe('stale');
        expect(await fleet.listStopRequests('w')).toEqual([]);
      });

      test('those that are left are asked where one has ended or stops already', async () => {
        await worker();
        const [a, b, c, urgent] = [await shareable(), await shareable(), await shareable(), await steps.queued({ priority: 60 })];
        const [first, second, third] = [await placed(a), await placed(b, [a]), await placed(c, [a, b])];
        await fleet.complete(keyOf(first), done);
        await records.pauseJob(steps.teamId, b, LEASE_MS);
        expect(await preempt([first, second, third], urgent)).toBe('applied');
        expect((await fleet.listStopRequests('w')).map(({ key, reason }) => [key.jobId, reason]).sort()).toEqual([[b, 'paused'], [c, 'preempted']].sort());
      });
    });

    describe('what is charged, and who was there', () => {
      test('the time that anybody held the worker is charged once, to those who held it; account, run history and report agree', async () => {
        const before = new Date().toISOString().slice(0, 10);
        const other = await records.ensureTeam('other');
        await worker('w', 3);
        const [a, b, c] = [await shareable(), await shareable('base r1', 100, other.id), await shareable()];
        const first = await placed(a);
        const second = await placed(b, [a]);
        await fleet.endAttempt(keyOf(first), { outcome: 'failed', failure: crashed, after: retry });
        const third = await placed(c, [b]);
        await fleet.complete(keyOf(second), done);
        await fleet.complete(keyOf(third), done);

        const charged = await Promise.all([first, second, third].map(async ({ jobId, id }) => (await records.listCompany(jobId)).get(id)?.gpuSeconds ?? NaN));
        const attempts = (await Promise.all([a, b, c].map((id) => records.listAttempts(id)))).flat();
        const held = (Math.max(...attempts.map(({ finishedAt }) => finishedAt?.getTime() ?? NaN)) - Math.min(...attempts.map(({ assignedAt }) => assignedAt.getTime()))) / 1000;
        const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
        // Records tell times in whole milliseconds.
        expect(Math.abs(sum(charged) - held)).toBeLessThan(0.005);
        expect(charged.every((seconds) => seconds > 0)).toBe(true);
        // Each had company for a while.
        attempts.forEach(({ assignedAt, finishedAt }, index) => expect(charged[index]).toBeLessThan(((finishedAt?.getTime() ?? NaN) - assignedAt.getTime()) / 1000));

        const accounts = [await records.getTeam('team'), await records.getTeam('other')].map((team) => team?.monthGpuSeconds ?? NaN);
        expect(accounts[0]).toBeCloseTo((charged[0] as number) + (charged[2] as number), 4);
        expect(accounts[1]).toBeCloseTo(charged[1] as number, 4);
        const days = await records.usageByDay({ from: before, to: new Date().toISOString().slice(0, 10) });
        expect(sum(days.filter(({ team }) => team === 'other').map(({ gpuSeconds }) => gpuSeconds))).toBeCloseTo(charged[1] as number, 4);
        expect(sum(days.map(({ gpuSeconds }) => gpuSeconds))).toBeCloseTo(sum(charged), 4);
      });

      test('what runs counts in its part as it runs', async () => {
        await worker('w', 2);
        const [a, b] = [await shareable(), await shareable()];
        const [first, second] = [await placed(a), await placed(b, [a])];
        const { running, nowMs } = await fleet.schedulingSnapshot(10);
        const seen = running.map(({ gpuSeconds }) => gpuSeconds).reduce((total, seconds) => total + seconds, 0);
        expect(Math.abs(seen - (nowMs - first.assignedAt.getTime()) / 1000)).toBeLessThan(0.05);
        const beside = async ({ jobId, id }: typeof first) => (await records.listCompany(jobId)).get(id)?.beside;
        expect([await beside(first), await beside(second)]).toEqual([[{ jobId: b, teamId: steps.teamId, isLive: true }], [{ jobId: a, teamId: steps.teamId, isLive: true }]]);
        await fleet.complete(keyOf(second), done);
        expect(await beside(first)).toEqual([{ jobId: b, teamId: steps.teamId, isLive: false }]);
      });

      test('one that was taken back is nobody\'s company, and charged to nobody', async () => {
        await worker('w', 2);
        const [a, b] = [await shareable(), await shareable()];
        const first = await placed(a);
        const attempt = await place(b, [a]);
        if (attempt === null) throw new Error('not placed');
        await fleet.revoke(keyOf(attempt), 'busy');
        expect(await records.listCompany(b)).toEqual(new Map([[attempt.id, { beside: [], gpuSeconds: 0 }]]));
        expect((await records.listCompany(a)).get(first.id)?.beside).toEqual([]);
      });

      test('a team lets its jobs share, or not', async () => {
        expect(await records.sharesWorkers(steps.teamId)).toBe(false);
        await records.setTeamQuota('team', { sharesWorkers: true });
        expect(await records.sharesWorkers(steps.teamId)).toBe(true);
        await records.setTeamQuota('team', { weight: 2 });
        expect(await records.getTeam('team')).toMatchObject({ quota: { weight: 2, sharesWorkers: true } });
      });
    });
  });
}

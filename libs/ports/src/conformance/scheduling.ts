import type { WaitingJob } from '@tunefleet/domain-scheduling';
import type { Completion, FleetStore } from '../fleet-store';
import type { RecordStore } from '../record-store';
import { StoreSteps, type StoreUnderTest } from './store-under-test';

const waits = (changes: Partial<WaitingJob> = {}): WaitingJob => ({ code: 'workers_busy', text: 'waits', position: 1, estimatedStartMs: null, ...changes });
const done: Completion = { result: {}, artifacts: [], resultFiles: [], messages: [] };
const NO_BOUNDS = { weight: 1, runningJobs: null, gpuHoursPerMonth: null, queuedJobs: null, storageBytes: null, sharesWorkers: false };

/** What a store must do for the scheduler between teams. Call at the top level of a spec file. @param open an empty store, closed by the suite */
export function schedulingConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`scheduling: ${name}`, () => {
    let steps: StoreSteps;
    let fleet: FleetStore;
    let records: RecordStore;
    beforeEach(async () => {
      steps = await StoreSteps.of(await open());
      ({ fleet, records } = steps.store);
    });
    afterEach(() => steps.store.close());

    const snapshotOf = async (jobId: string) => (await fleet.schedulingSnapshot(100)).jobs.find(({ id }) => id === jobId);

    describe('what waiting jobs are told', () => {
      test('only those in the queue are, and a placement wipes it out', async () => {
        const [queued, running] = [await steps.queued(), await steps.queued()];
        await steps.worker('w');
        await steps.assigned(running, 'w');
        const estimatedStartMs = Date.UTC(2030, 0, 1);
        await fleet.noteWaiting(new Map([[queued, waits({ position: 7, estimatedStartMs })], [running, waits()]]));
        expect([await fleet.getJob(queued), await fleet.getJob(running)]).toMatchObject([
          { waitingReason: 'waits', waitingCode: 'workers_busy', queuePosition: 7, estimatedStart: new Date(estimatedStartMs) },
          { waitingReason: null, waitingCode: null, queuePosition: null, estimatedStart: null },
        ]);
        await fleet.noteWaiting(new Map([[queued, waits({ position: 2, estimatedStartMs: null })]]));
        expect(await fleet.getJob(queued)).toMatchObject({ queuePosition: 2, estimatedStart: null });
        await steps.worker('v');
        await steps.assigned(queued, 'v');
        expect(await fleet.getJob(queued)).toMatchObject({ waitingReason: null, waitingCode: null, queuePosition: null });
      });

      test('the wait for a model counts from its first time until the job is placed', async () => {
        const jobId = await steps.queued();
        await fleet.noteWaiting(new Map([[jobId, waits({ code: 'model_locality' })]]));
        const since = (await snapshotOf(jobId))?.localitySinceMs;
        expect(since).toEqual(expect.any(Number));
        await fleet.noteWaiting(new Map([[jobId, waits()]]));
        await fleet.noteWaiting(new Map([[jobId, waits({ code: 'model_locality' })]]));
        expect((await snapshotOf(jobId))?.localitySinceMs).toBe(since);
        await steps.worker('w');
        await fleet.revoke(await steps.assigned(jobId, 'w'), 'busy');
        expect((await snapshotOf(jobId))?.localitySinceMs).toBeNull();
      });
    });

    test('a job\'s turn counts from its submission, however long its files take to check', async () => {
      const [first, second] = [await steps.create(), await steps.create()];
      await steps.admit(second);
      await steps.admit(first);
      expect((await fleet.schedulingSnapshot(10)).jobs.map(({ id }) => id)).toEqual([first, second]);
    });

    describe('teams', () => {
      test('the queue of one does not hide that of another', async () => {
        const other = await records.ensureTeam('other');
        const first = [await steps.queued(), await steps.queued(), await steps.queued()];
        const theirs = await steps.queued({ teamId: other.id });
        const { jobs, jobsNotShown } = await fleet.schedulingSnapshot(2);
        expect([jobs.map(({ id }) => id).sort(), jobsNotShown]).toEqual([[first[0], theirs].sort(), 2]);
      });

      test('a quota is changed field by field, and the scheduler sees it', async () => {
        expect(await records.getTeam('team')).toMatchObject({ id: steps.teamId, quota: NO_BOUNDS, runningJobs: 0, queuedJobs: 0, storageBytes: 0, monthGpuSeconds: 0 });
        await records.setTeamQuota('team', { weight: 2, runningJobs: 3, storageBytes: 100 });
        expect(await records.setTeamQuota('team', { runningJobs: null, gpuHoursPerMonth: 1.5 })).toMatchObject({ quota: { ...NO_BOUNDS, weight: 2, gpuHoursPerMonth: 1.5, storageBytes: 100 } });
        expect((await fleet.schedulingSnapshot(1)).teams).toMatchObject([{ id: steps.teamId, name: 'team', weight: 2, quota: { runningJobs: null, gpuHoursPerMonth: 1.5 } }]);
        expect((await records.listTeams()).map(({ name: teamName }) => teamName)).toEqual(['team']);
        expect([await records.setTeamQuota('nobody', { weight: 1 }), await records.getTeam('nobody')]).toEqual([null, null]);
      });

      test('no more jobs wait than the quota allows, also when they come at once; a repeated request is answered all the same', async () => {
        const idempotency = { key: 'k', requestHash: 'h' };
        const first = await steps.create({ idempotency });
        await records.setTeamQuota('team', { queuedJobs: 2 });
        const tries = await Promise.allSettled([steps.create(), steps.create(), steps.create()]);
        expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
        await expect(steps.create()).rejects.toMatchObject({ code: 'capacity', reason: 'queue_quota_exceeded', details: { waiting: 2, quota: 2 } });
        expect(await steps.create({ idempotency })).toBe(first);
        await records.cancelJob(steps.teamId, first);
        await steps.create();
      });

      test('files take no more room than the quota allows; deleting makes room', async () => {
        const file = (bytes: number) => records.createFile({ teamId: steps.teamId, filename: 'f', purpose: 'fine-tune', bytes, sha256: 'a'.repeat(64), expiresAt: null });
        await records.setTeamQuota('team', { storageBytes: 10 });
        const stored = await file(8);
        await expect(file(3)).rejects.toMatchObject({ code: 'capacity', reason: 'storage_quota_exceeded', details: { bytes: 3, used: 8, quota: 10 } });
        await records.deleteFile(steps.teamId, stored.id);
        await file(10);
        expect(await records.getTeam('team')).toMatchObject({ storageBytes: 10 });
      });

      test('every ended attempt is charged to its team once, however it ended; one that was taken back is not', async () => {
        await steps.worker('w');
        const revoked = await steps.assigned(await steps.queued(), 'w');
        await fleet.revoke(revoked, 'busy');
        expect(await records.getTeam('team')).toMatchObject({ decayedGpuSeconds: 0, monthGpuSeconds: 0 });
        await steps.credit('w');
        const jobId = await steps.queued();
        const first = await steps.running(jobId, 'w');
        await fleet.endAttempt(first, { outcome: 'stopped', failure: null, after: { then: 'retry', counts: 'none', delayMs: 0 } });
        const once = (await records.getTeam('team'))?.monthGpuSeconds ?? 0;
        expect(once).toBeGreaterThan(0);
        await fleet.endAttempt(first, { outcome: 'stopped', failure: null, after: { then: 'retry', counts: 'none', delayMs: 0 } });
        expect((await records.getTeam('team'))?.monthGpuSeconds).toBe(once);
        await steps.credit('w');
        await fleet.complete(await steps.running(jobId, 'w'), done);
        const { monthGpuSeconds = 0, decayedGpuSeconds = 0 } = (await records.getTeam('team')) ?? {};
        expect(monthGpuSeconds).toBeGreaterThan(once);
        // No noticeable share of a week has passed.
        expect(Math.abs(decayedGpuSeconds - monthGpuSeconds)).toBeLessThan(0.01 * monthGpuSeconds);
        expect((await fleet.schedulingSnapshot(1)).teams[0]?.monthGpuSeconds).toBeCloseTo(monthGpuSeconds, 6);
      });
    });

    describe('the usage report', () => {
      const today = () => new Date().toISOString().slice(0, 10);

      test('holds what attempts held their workers for; work behind the last checkpoint of one that did not succeed is lost', async () => {
        const before = today();
        await steps.worker('w');
        await fleet.complete(await steps.running(await steps.queued(), 'w'), done);
        await steps.credit('w');
        const broken = await steps.running(await steps.queued(), 'w');
        await fleet.endAttempt(broken, { outcome: 'stopped', failure: null, after: { then: 'retry', counts: 'none', delayMs: 60_000 } });
        await steps.worker('v');
        await fleet.revoke(await steps.assigned(await steps.queued(), 'v'), 'busy');
        const rows = await records.usageByDay({ from: before, to: today() });
        const sum = (of: (row: (typeof rows)[number]) => number) => rows.reduce((total, row) => total + of(row), 0);
        expect(rows.map(({ team }) => team)).toContain('team');
        expect(sum(({ gpuSeconds }) => gpuSeconds)).toBeCloseTo((await records.getTeam('team'))?.monthGpuSeconds ?? NaN, 4);
        expect(sum(({ wastedGpuSeconds }) => wastedGpuSeconds)).toBeGreaterThan(0);
        expect(sum(({ wastedGpuSeconds }) => wastedGpuSeconds)).toBeLessThan(sum(({ gpuSeconds }) => gpuSeconds));
        // Two, or more where midnight lay between.
        expect(sum(({ attempts }) => attempts)).toBeGreaterThanOrEqual(2);
        expect(await records.usageByDay({ from: before, to: today(), team: 'nobody' })).toEqual([]);
        expect(await records.usageByDay({ from: '2020-01-01', to: '2020-12-31' })).toEqual([]);
      });
    });

    describe('what the plan goes by', () => {
      test('labels asked for and borne, weights of the model, and since when a worker is idle', async () => {
        const jobId = await steps.create({ workerSelector: { gpu: 'h100' } });
        await steps.admit(jobId, {}, { weightBytes: 123 });
        await steps.worker('w', { labels: { gpu: 'a100' } });
        await fleet.complete(await steps.running(await steps.queued(), 'w'), done);
        const { workers, nowMs } = await fleet.schedulingSnapshot(1);
        expect(await snapshotOf(jobId)).toMatchObject({ workerSelector: { gpu: 'h100' }, weightBytes: 123, secondsEstimate: null, memoryCorrection: 1 });
        expect(workers).toMatchObject([{ labels: { gpu: 'a100' } }]);
        expect(nowMs - (workers[0]?.idleSinceMs ?? 0)).toBeLessThan(60_000);
        expect(await fleet.getJob(jobId)).toMatchObject({ workerSelector: { gpu: 'h100' } });
      });

      test('what a job took is the estimate for the next of its shape, and for others of its kind on its base', async () => {
        const memoryModel = { fixedBytes: 1000, rowBytes: 100 };
        const measured = await steps.create();
        await steps.admit(measured, {}, { shape: 's', memoryModel });
        await steps.worker('w');
        const key = await steps.running(measured, 'w');
        await fleet.appendEvents(key, [{ seq: 1, type: 'progress', step: 1, totalSteps: 10, phase: 'train', tokensPerSecond: 1, etaSeconds: 1, microBatchSize: 10 }]);
        await fleet.complete(key, { ...done, result: { peakDeviceBytes: 3000 } });
        expect([await records.memoryCorrection('s'), await records.memoryCorrection('other')]).toEqual([1.5, 1]);

        const [same, other, elsewhere] = [await steps.create(), await steps.create(), await steps.create({ baseModel: 'other@r1' })];
        await steps.admit(same, {}, { shape: 's', memoryModel });
        await steps.admit(other, {}, { shape: 't' });
        await steps.admit(elsewhere);
        expect([(await snapshotOf(same))?.memoryCorrection, (await snapshotOf(other))?.memoryCorrection]).toEqual([1.5, 1]);
        expect([(await snapshotOf(same))?.secondsEstimate, (await snapshotOf(other))?.secondsEstimate]).toEqual([expect.any(Number), expect.any(Number)]);
        expect((await snapshotOf(elsewhere))?.secondsEstimate).toBeNull();
      });
    });

    describe('making room', () => {
      test('the victim is asked to hand its job back, once, and counted; one worker is freed for a job', async () => {
        const [victim, second, urgent] = [await steps.queued(), await steps.queued(), await steps.queued({ priority: 60 })];
        await steps.worker('w');
        await steps.worker('v');
        const [key, other] = [await steps.running(victim, 'w'), await steps.running(second, 'v')];
        const ask = (of: typeof key, workerId = 'w') => fleet.preempt({ victims: [of], workerId, forJobId: urgent, deadlineMs: 60_000 });
        expect(await ask({ ...key, epoch: 9 })).toBe('stale');
        const answers = await Promise.all([ask(key), ask(key), ask(other, 'v')]);
        expect(answers.filter((answer) => answer === 'applied')).toHaveLength(1);
        const [asked, worker] = answers[2] === 'applied' ? [other, 'v'] : [key, 'w'];
        expect(await fleet.listStopRequests(worker)).toMatchObject([{ key: asked, reason: 'preempted' }]);
        expect((await fleet.schedulingSnapshot(1)).running.find(({ jobId }) => jobId === asked.jobId)).toMatchObject({ attemptId: asked.attemptId, stopping: true, preemptions: 1, preemptedForJobId: urgent });
        await fleet.endAttempt(asked, { outcome: 'stopped', failure: null, after: { then: 'retry', counts: 'none', delayMs: 0 } });
        expect(await fleet.getJob(asked.jobId)).toMatchObject({ status: 'queued', preemptions: 1, stopReason: null });
        expect((await fleet.schedulingSnapshot(1)).running).toHaveLength(1);
      });

      test('not for a job that waits no longer', async () => {
        const [victim, urgent] = [await steps.queued(), await steps.queued({ priority: 60 })];
        await steps.worker('w');
        const key = await steps.running(victim, 'w');
        await records.cancelJob(steps.teamId, urgent);
        expect(await fleet.preempt({ victims: [key], workerId: 'w', forJobId: urgent, deadlineMs: 1 })).toBe('stale');
        expect(await fleet.listStopRequests('w')).toEqual([]);
      });
    });
  });
}

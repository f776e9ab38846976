import type { Failure } from '@tunefleet/contracts';
import type { AttemptKey, Completion, FleetStore, WakeTopic, WorkerEvent } from '../fleet-store';
import type { RecordStore } from '../record-store';
import { LEASE_MS, NO_LEASE_MS, StoreSteps, keyOf, type StoreUnderTest } from './store-under-test';

const lost: Failure = { class: 'infrastructure', code: 'worker_lost', message: 'gone', param: null, logTail: ['a\u0000b'] };
const retry = { then: 'retry', counts: 'infrastructure', delayMs: 0 } as const;
const done: Completion = { result: { loss: 1 }, artifacts: [], resultFiles: [], messages: ['done'] };
const artifacts = [{ name: 'adapter.safetensors', sha256: 'b'.repeat(64), bytes: 7 }];
const metrics = (seq: number, step: number, loss = step): WorkerEvent => ({ seq, type: 'metrics', step, values: { train_loss: loss } });
const checkpoint = (seq: number, step: number): WorkerEvent => ({ seq, type: 'checkpoint', step, artifacts, metrics: { valid_loss: step } });

/** What every FleetStore must do. Call at the top level of a spec file. @param open an empty store, closed by the suite */
export function fleetStoreConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`FleetStore: ${name}`, () => {
    let steps: StoreSteps;
    let fleet: FleetStore;
    let records: RecordStore;
    beforeEach(async () => {
      steps = await StoreSteps.of(await open());
      ({ fleet, records } = steps.store);
    });
    afterEach(() => steps.store.close());

    describe('workers', () => {
      test('a newer session takes over; the older one can change nothing any more', async () => {
        const old = await steps.worker('w');
        const now = await steps.worker('w', { sessionId: 'newer', bootId: 'boot-2' });
        expect(await fleet.touchWorker('w', old, { memoryBytesFree: 1 })).toBe(false);
        expect(await steps.credit('w', old, 5)).toBe(false);
        await fleet.disconnectWorker('w', old);
        expect(await fleet.touchWorker('w', now, { memoryBytesFree: 123 })).toBe(true);
        const { workers } = await fleet.schedulingSnapshot(10);
        expect(workers).toMatchObject([{ id: 'w', online: true, sessionId: 'newer', bootId: 'boot-2', credit: 1, busy: false, memoryBytesFree: 123, memoryBytesTotal: 4000, modelsOnDisk: ['base@r1'] }]);
      });

      test('silence makes it suspect, then offline without credit; a beat of its session revives a suspect one', async () => {
        const session = await steps.worker('w');
        expect(await fleet.markSilentWorkers(600_000, 600_000)).toEqual([]);
        expect(await fleet.markSilentWorkers(0, 600_000)).toEqual(['w']);
        expect((await fleet.schedulingSnapshot(1)).workers[0]).toMatchObject({ online: false });
        await fleet.touchWorker('w', session, {});
        expect((await fleet.schedulingSnapshot(1)).workers[0]).toMatchObject({ online: true, credit: 1 });
        expect(await fleet.markSilentWorkers(0, 0)).toEqual(['w']);
        expect(await records.listWorkers()).toMatchObject([{ status: 'offline', credit: 0, sessionId: null }]);
        expect(await fleet.touchWorker('w', session, {})).toBe(false);
      });

      test('a stream that ends leaves it without credit', async () => {
        await fleet.disconnectWorker('w', await steps.worker('w'));
        expect((await fleet.schedulingSnapshot(1)).workers).toMatchObject([{ online: false, credit: 0 }]);
      });
    });

    test('how long a control plane has been there is told since the last gap, whoever it was', async () => {
      const began = await fleet.keepWatch(600_000);
      expect(began).toBeLessThan(60_000);
      await steps.worker('w');
      const later = await fleet.keepWatch(600_000);
      expect(later).toBeGreaterThan(began);
      // Any time is a gap.
      expect(await fleet.keepWatch(-1)).toBeLessThan(later);
      expect(await fleet.keepWatch(600_000)).toBeGreaterThan(0);
    });

    describe('placing', () => {
      test('the snapshot holds queued jobs in placing order, no others, and says how many it left out', async () => {
        const [first, second, urgent] = [await steps.queued(), await steps.queued({}, { base: { id: 'org/model', revision: 'abc' } }), await steps.queued({ priority: 1 })];
        await steps.create();
        await records.cancelJob(steps.teamId, await steps.queued());
        const { jobs, jobsNotShown, nowMs } = await fleet.schedulingSnapshot(2);
        expect(jobs.map(({ id }) => id)).toEqual([urgent, first]);
        expect(jobsNotShown).toBe(1);
        expect(jobs[0]).toMatchObject({ kind: 'fine-tune', epoch: 0, baseModel: 'base@r1', memoryBytesEstimate: 1000, failedWorkerIds: [], lastWorkerId: null, notBeforeMs: null });
        expect(jobs[0]?.queuedAtMs).toBeLessThanOrEqual(nowMs);
        expect((await fleet.schedulingSnapshot(10)).jobs.find(({ id }) => id === second)).toMatchObject({ baseModel: 'org/model@abc' });
      });

      test('starts the next attempt and spends the credit', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const attempt = await fleet.place(await steps.placement(jobId, 'w'), LEASE_MS);
        expect(attempt).toMatchObject({ jobId, epoch: 1, workerId: 'w', workerBootId: 'boot-1', status: 'assigned', outcome: null, acknowledgedAt: null });
        expect((attempt?.leaseExpiresAt.getTime() ?? 0) - (attempt?.assignedAt.getTime() ?? 0)).toBeGreaterThan(LEASE_MS - 60_000);
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'running', epoch: 1, startedAt: expect.any(Date) });
        expect((await fleet.schedulingSnapshot(1)).workers).toMatchObject([{ busy: true, credit: 0 }]);
        const key = { jobId, attemptId: attempt?.id, epoch: 1 };
        expect(await fleet.listUnacknowledged('w')).toMatchObject([{ key, job: { id: jobId }, resume: null }]);
        const leaseOf = async (): Promise<number> => (await fleet.listLiveAttempts('w'))[0]?.leaseExpiresAt.getTime() ?? 0;
        const atPlacement = await leaseOf();
        await fleet.listUnacknowledged('w', 3 * LEASE_MS);
        const whenSent = await leaseOf();
        expect(whenSent - atPlacement).toBeGreaterThanOrEqual(2 * LEASE_MS);
        expect(await fleet.acknowledge(key as AttemptKey)).toBe('applied');
        expect(await leaseOf()).toBe(whenSent);
        expect(await fleet.acknowledge(key as AttemptKey, 5 * LEASE_MS)).toBe('applied');
        expect((await leaseOf()) - whenSent).toBeGreaterThanOrEqual(2 * LEASE_MS);
        expect(await fleet.listUnacknowledged('w')).toEqual([]);
        expect(await fleet.listLiveAttempts('w')).toMatchObject([{ status: 'running', acknowledgedAt: expect.any(Date) }]);
      });

      test.each<[string, (jobId: string) => Promise<unknown>]>([
        ['the job was cancelled', (jobId) => records.cancelJob(steps.teamId, jobId)],
        ['the worker was cordoned', () => records.setWorkerCordoned('w', true)],
        ['the worker came back under a new session', () => steps.worker('w', { sessionId: 's2' })],
        ['the worker went away', () => fleet.disconnectWorker('w', 'session-w')],
        ['the worker withdrew its credit', () => steps.credit('w', 'session-w', 0)],
        ['the job was placed elsewhere', async (jobId) => (await steps.worker('v'), steps.assigned(jobId, 'v'))],
        ['the worker got another job', async () => steps.assigned(await steps.queued(), 'w')],
        ['the worker holds an attempt, whatever it says of its credit', async () => (await steps.assigned(await steps.queued(), 'w'), steps.credit('w'))],
      ])('changes nothing when, since the snapshot, %s', async (_change, change) => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const placement = await steps.placement(jobId, 'w');
        await change(jobId);
        const before = await fleet.getJob(jobId);
        expect(await fleet.place(placement, LEASE_MS)).toBeNull();
        expect(await fleet.getJob(jobId)).toEqual(before);
      });

      test('of many replicas that place at once, exactly one succeeds', async () => {
        const [one, two] = [await steps.queued(), await steps.queued()];
        await steps.worker('w');
        await steps.worker('v');
        const placements = await Promise.all([steps.placement(one, 'w'), steps.placement(one, 'v'), steps.placement(two, 'w'), steps.placement(one, 'w')]);
        const placed = (await Promise.all(placements.map((placement) => fleet.place(placement, LEASE_MS)))).filter((attempt) => attempt !== null);
        expect(new Set(placed.map(({ jobId }) => jobId)).size).toBe(placed.length);
        expect(new Set(placed.map(({ workerId }) => workerId)).size).toBe(placed.length);
        expect(placed.length).toBeGreaterThanOrEqual(1);
      });

      test('an assignment that is taken back leaves the job in the queue, and no failure', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.assigned(jobId, 'w');
        expect(await fleet.listUnacknowledgedOlderThan(600_000, 10)).toEqual([]);
        expect((await fleet.listUnacknowledgedOlderThan(0, 10)).map(({ attempt }) => attempt.id)).toEqual([key.attemptId]);
        expect([await fleet.revoke(key, 'busy'), await fleet.revoke(key, 'busy')]).toEqual(['applied', 'applied']);
        expect(await fleet.acknowledge(key)).toBe('stale');
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'queued', infraFailures: 0 });
        await steps.credit('w');
        expect((await steps.assigned(jobId, 'w')).epoch).toBe(2);
      });
    });

    describe('events', () => {
      let jobId: string;
      let key: AttemptKey;
      beforeEach(async () => {
        jobId = await steps.queued();
        await steps.worker('w');
        key = await steps.running(jobId, 'w');
      });
      const losses = async () => (await records.listMetrics(jobId, { name: 'train_loss', limit: 100 })).map(({ step, value }) => [step, value]);

      test('are stored once, however often they come and in whatever batches', async () => {
        const all = [metrics(1, 1), metrics(2, 2), checkpoint(3, 2), metrics(4, 3), metrics(5, 4)];
        expect(await fleet.appendEvents(key, all.slice(0, 2))).toEqual({ result: 'applied', lastSeq: 2 });
        const answers = await Promise.all([all.slice(0, 3), all, all.slice(1, 4)].map((batch) => fleet.appendEvents(key, batch)));
        expect(answers.every(({ result }) => result === 'applied')).toBe(true);
        expect(await fleet.appendEvents(key, all)).toEqual({ result: 'applied', lastSeq: 5 });
        expect(await losses()).toEqual([[1, 1], [2, 2], [3, 3], [4, 4]]);
        expect((await records.listCheckpoints(jobId, { limit: 10 })).items).toMatchObject([{ step: 2, artifacts, metrics: { valid_loss: 2 }, epoch: 1 }]);
        expect((await steps.messages(jobId)).filter((message) => message.startsWith('Step')).length).toBe(4);
      });

      test('a gap is refused whole, with the number to go on from', async () => {
        await fleet.appendEvents(key, [metrics(1, 1)]);
        const refusal = { code: 'conflict', reason: 'event_gap', details: { lastSeq: 1 } };
        await expect(fleet.appendEvents(key, [metrics(3, 3)])).rejects.toMatchObject(refusal);
        await expect(fleet.appendEvents(key, [metrics(2, 2), metrics(4, 4)])).rejects.toMatchObject(refusal);
        expect(await losses()).toEqual([[1, 1]]);
        expect(await fleet.appendEvents(key, [metrics(2, 2), metrics(3, 3)])).toEqual({ result: 'applied', lastSeq: 3 });
      });

      test('numbers that are none, and texts that a database may refuse, stop nothing', async () => {
        const events: WorkerEvent[] = [
          { seq: 1, type: 'metrics', step: 1, values: { train_loss: Number.NaN, norm: Number.POSITIVE_INFINITY } },
          { seq: 2, type: 'log', level: 'warn', message: 'a\u0000b', data: { text: '\ud800' } },
          { seq: 3, type: 'progress', step: 1, totalSteps: 10, phase: 'training', tokensPerSecond: Number.NaN, etaSeconds: Number.POSITIVE_INFINITY },
        ];
        expect(await fleet.appendEvents(key, events)).toEqual({ result: 'applied', lastSeq: 3 });
        expect(await records.listMetrics(jobId, { limit: 10 })).toEqual([{ name: 'norm', step: 1, value: Number.POSITIVE_INFINITY }, { name: 'train_loss', step: 1, value: Number.NaN }]);
        expect(await fleet.getJob(jobId)).toMatchObject({ step: 1, phase: 'training', estimatedFinish: null });
      });

      test('of an epoch that is over, or never was, are stale and leave nothing', async () => {
        await fleet.appendEvents(key, [metrics(1, 1)]);
        expect(await fleet.appendEvents({ ...key, epoch: 2 }, [metrics(2, 2)])).toEqual({ result: 'stale', lastSeq: 0 });
        await records.cancelJob(steps.teamId, jobId);
        expect(await fleet.appendEvents(key, [metrics(2, 2), checkpoint(3, 2)])).toEqual({ result: 'stale', lastSeq: 1 });
        expect([await fleet.isLive(key), await fleet.renewLease(key, LEASE_MS), await fleet.acknowledge(key)]).toEqual([false, 'stale', 'stale']);
        expect(await fleet.listStopRequests('w')).toEqual([{ key, reason: 'cancelled', graceMs: 0 }]);
        await fleet.closeAttempt(key, 'stopped');
        expect(await fleet.listStopRequests('w')).toEqual([]);
        expect([await losses(), await fleet.latestCheckpoint(jobId)]).toEqual([[[1, 1]], null]);
      });
    });

    describe('leases', () => {
      test('one that ran out: the next attempt starts from the last checkpoint, and nothing of the old one counts', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        await steps.worker('v');
        const old = await steps.running(jobId, 'w', NO_LEASE_MS);
        await fleet.appendEvents(old, [metrics(1, 1), checkpoint(2, 1), metrics(3, 2), checkpoint(4, 2), metrics(5, 3)]);
        expect((await fleet.listExpired(10)).map(({ attempt, job }) => [keyOf(attempt), job.id])).toEqual([[old, jobId]]);
        expect(await fleet.endAttempt(old, { outcome: 'lost', failure: lost, after: { ...retry, specPatch: { micro: 1 } } })).toBe('applied');
        expect(await fleet.listExpired(10)).toEqual([]);
        const [queued] = (await fleet.schedulingSnapshot(10)).jobs;
        expect(queued).toMatchObject({ id: jobId, epoch: 1, failedWorkerIds: ['w'], lastWorkerId: 'w' });
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'queued', infraFailures: 1, workerSpec: { micro: 1 } });

        const next = await steps.running(jobId, 'v');
        expect(next.epoch).toBe(2);
        const [live] = await fleet.listLiveAttempts('v');
        expect(live?.resumeCheckpointId).toBe(queued?.resumeCheckpointId);
        expect(await records.getCheckpoint(live?.resumeCheckpointId ?? '')).toMatchObject({ jobId, step: 2 });

        expect(await fleet.appendEvents(old, [metrics(6, 4, 99)])).toEqual({ result: 'stale', lastSeq: 5 });
        expect([await fleet.complete(old, done), await fleet.renewLease(old, LEASE_MS), await fleet.endAttempt(old, { outcome: 'failed', failure: lost, after: { then: 'fail' } })]).toEqual(['stale', 'stale', 'stale']);
        // Step 3 again: told twice, stored once.
        await fleet.appendEvents(next, [metrics(1, 3, 3.5), checkpoint(2, 3)]);
        expect(await records.listMetrics(jobId, { limit: 10 })).toEqual([1, 2, 3].map((step) => ({ name: 'train_loss', step, value: step === 3 ? 3.5 : step })));
        expect(await fleet.complete(next, done)).toBe('applied');
        expect((await records.listAttempts(jobId)).map(({ epoch, outcome }) => [epoch, outcome])).toEqual([[1, 'lost'], [2, 'succeeded']]);
      });

      test('one that was renewed before the verdict is not lost', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.running(jobId, 'w', NO_LEASE_MS);
        expect(await fleet.renewLease(key, LEASE_MS)).toBe('applied');
        expect(await fleet.endAttempt(key, { outcome: 'lost', failure: lost, after: retry })).toBe('stale');
        expect([await fleet.isLive(key), await steps.status(jobId), (await fleet.listExpired(10)).length]).toEqual([true, 'running', 0]);
        // A shorter renewal, late on its way, takes nothing back.
        await fleet.renewLease(key, NO_LEASE_MS);
        expect(await fleet.listExpired(10)).toEqual([]);
      });

      test('a worker that came back as another process has lost its attempt at once', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.running(jobId, 'w');
        await steps.worker('w', { bootId: 'boot-2', sessionId: 's2' });
        expect(await fleet.endAttempt(key, { outcome: 'lost', failure: lost, after: { ...retry, delayMs: 3_600_000 } })).toBe('applied');
        const { jobs, nowMs } = await fleet.schedulingSnapshot(10);
        expect((jobs[0]?.notBeforeMs ?? 0) - nowMs).toBeGreaterThan(3_000_000);
        expect(await fleet.place(await steps.placement(jobId, 'w'), LEASE_MS)).toBeNull();
      });
    });

    describe('endings', () => {
      let jobId: string;
      let key: AttemptKey;
      beforeEach(async () => {
        jobId = await steps.queued();
        await steps.worker('w');
        key = await steps.running(jobId, 'w');
      });

      test('a job is completed once, with its adapter and files; saying it again is answered as before', async () => {
        const completion: Completion = {
          ...done,
          artifacts,
          adapter: { name: 'ft:base:team::1', baseModel: 'base', baseRevision: 'r1', tunerKind: 'lora' },
          resultFiles: [{ filename: 'metrics.csv', bytes: 12, sha256: 'c'.repeat(64) }],
        };
        const answers = await Promise.all([1, 2, 3].map(() => fleet.complete(key, completion)));
        expect(answers).toEqual(['applied', 'applied', 'applied']);
        const job = await fleet.getJob(jobId);
        expect(job).toMatchObject({ status: 'succeeded', result: { loss: 1 }, finishedAt: expect.any(Date) });
        const files = (await records.listFiles(steps.teamId, { limit: 10, order: 'asc' })).items;
        expect(files).toMatchObject([{ id: job?.resultFileIds[0], purpose: 'fine-tune-results', filename: 'metrics.csv', bytes: 12 }]);
        expect(await records.listAdapters(steps.teamId)).toMatchObject([{ name: 'ft:base:team::1', jobId, artifacts }]);
        expect((await steps.messages(jobId)).filter((message) => message === 'done')).toHaveLength(1);
        await expect(records.cancelJob(steps.teamId, jobId)).rejects.toMatchObject({ code: 'illegal_transition' });
        expect(await records.deleteAdapter(steps.teamId, 'ft:base:team::1')).toBe(true);
        expect(await records.getAdapterByJob(steps.teamId, jobId)).toBeNull();
      });

      test('cancel against complete: one of them wins, and the record agrees with itself', async () => {
        const outcomes = new Set<string>();
        for (let round = 0; round < 8; round++) {
          const raced = round === 0 ? jobId : await steps.queued();
          const attempt = round === 0 ? key : await steps.running(raced, 'w');
          const cancel = () => records.cancelJob(steps.teamId, raced).then(() => 'cancelled', () => 'refused');
          const complete = () => fleet.complete(attempt, done);
          const [cancelled, completed] = round % 2 === 0 ? await Promise.all([cancel(), complete()]) : await Promise.all([complete(), cancel()]).then(([b, a]) => [a, b]);
          const status = await steps.status(raced);
          outcomes.add(`${cancelled} ${completed} ${status}`);
          expect(await fleet.listLiveAttempts('w')).toEqual([]);
          await steps.credit('w');
        }
        for (const outcome of outcomes) expect(['cancelled stale cancelled', 'refused applied succeeded']).toContain(outcome);
      });

      test('what the user has to change fails the job, with the reason', async () => {
        const failure: Failure = { class: 'user', code: 'numerical', message: 'loss is not finite', param: null, logTail: Array.from({ length: 80 }, () => 'x'.repeat(3000)) };
        expect(await fleet.endAttempt(key, { outcome: 'failed', failure, after: { then: 'fail' } })).toBe('applied');
        expect(await fleet.endAttempt(key, { outcome: 'failed', failure, after: { then: 'fail' } })).toBe('applied');
        const job = await fleet.getJob(jobId);
        expect(job).toMatchObject({ status: 'failed', error: { class: 'user', code: 'numerical', message: 'loss is not finite' } });
        expect((await steps.messages(jobId)).filter((message) => message === 'loss is not finite')).toHaveLength(1);
        expect((await fleet.listLiveAttempts('w')).length).toBe(0);
      });

      test('a stop queues the job again without a failure; a live attempt cannot just be closed', async () => {
        await expect(fleet.closeAttempt(key, 'stopped')).rejects.toMatchObject({ code: 'conflict' });
        expect(await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: { then: 'retry', counts: 'none', delayMs: 0 } })).toBe('applied');
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'queued', infraFailures: 0, resourceFailures: 0 });
        expect((await fleet.schedulingSnapshot(1)).jobs[0]?.failedWorkerIds).toEqual([]);
      });
    });

    test('whoever listens is woken by what concerns the queue or its worker, and hears nothing after closing', async () => {
      const heard: WakeTopic[] = [];
      let arrived: () => void = () => undefined;
      const listen = () =>
        fleet.onWake((topic) => {
          heard.push(topic);
          arrived();
        });
      const [first, second] = await Promise.all([listen(), listen()]);
      await second.close();
      const until = async (topic: WakeTopic): Promise<void> => {
        while (!heard.includes(topic)) await new Promise<void>((resolve) => (arrived = resolve));
      };
      const jobId = await steps.queued();
      await until('schedule');
      await steps.worker('w');
      await until('worker:w');
      heard.length = 0;
      await steps.assigned(jobId, 'w');
      await until('worker:w');
      expect(heard.filter((topic) => topic === 'worker:w')).toHaveLength(1);
      heard.length = 0;
      await records.cancelJob(steps.teamId, jobId);
      await until('worker:w');
      await fleet.wake('worker:end');
      await until('worker:end');
      await first.close();
    });
  });
}

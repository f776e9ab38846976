import type { Failure } from '@tunefleet/contracts';
import type { AttemptKey, Completion, FleetStore, WorkerEvent } from '../fleet-store';
import type { RecordStore } from '../record-store';
import { LEASE_MS, NO_LEASE_MS, StoreSteps, type StoreUnderTest } from './store-under-test';

const GRACE_MS = 60_000;
const crashed: Failure = { class: 'infrastructure', code: 'engine_crashed', message: 'the engine died', param: null, logTail: [] };
const retry = { then: 'retry', counts: 'infrastructure', delayMs: 0 } as const;
const goOn = { then: 'retry', counts: 'none', delayMs: 0 } as const;
const done: Completion = { result: {}, artifacts: [], resultFiles: [], messages: [] };
const artifacts = [{ name: 'state.bin', sha256: 'b'.repeat(64), bytes: 7 }];
const metrics = (seq: number, step: number): WorkerEvent => ({ seq, type: 'metrics', step, values: { train_loss: step } });
const checkpoint = (seq: number, step: number): WorkerEvent => ({ seq, type: 'checkpoint', step, artifacts, metrics: {} });
const training = (seq: number, step: number, microBatchSize?: number): WorkerEvent => ({
  ...{ seq, type: 'progress', step, totalSteps: 10, phase: 'train', tokensPerSecond: 1, etaSeconds: 1 },
  ...(microBatchSize === undefined ? {} : { microBatchSize }),
});

/** What users and operators may do to jobs and workers, through both stores. Call at the top level of a spec file. */
export function controlsConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`controls: ${name}`, () => {
    let steps: StoreSteps;
    let fleet: FleetStore;
    let records: RecordStore;
    beforeEach(async () => {
      steps = await StoreSteps.of(await open());
      ({ fleet, records } = steps.store);
    });
    afterEach(() => steps.store.close());

    const pause = (id: string) => records.pauseJob(steps.teamId, id, GRACE_MS);
    const resume = (id: string) => records.resumeJob(steps.teamId, id);
    const waitingIds = async () => (await fleet.schedulingSnapshot(100)).jobs.map(({ id }) => id);
    const stops = async (workerId = 'w') => (await fleet.listStopRequests(workerId)).map(({ key, reason, graceMs }) => [key.jobId, reason, graceMs > 0]);

    describe('pause and resume', () => {
      test('a queued job is put aside, and comes back behind the others', async () => {
        const [first, second] = [await steps.queued(), await steps.queued()];
        expect(await pause(first)).toMatchObject({ status: 'paused', stopReason: null });
        expect(await pause(first)).toMatchObject({ status: 'paused' });
        expect(await waitingIds()).toEqual([second]);
        expect(await resume(first)).toMatchObject({ status: 'queued' });
        expect(await waitingIds()).toEqual([second, first]);
        expect(await steps.messages(first)).toEqual(expect.arrayContaining(['Job paused', 'Job resumed, moving it to queued state']));
      });

      test('a running job goes on counting until its worker has handed it back, then resumes from what it wrote', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.running(jobId, 'w');
        await fleet.appendEvents(key, [metrics(1, 1), metrics(2, 2)]);
        expect(await pause(jobId)).toMatchObject({ status: 'running', stopReason: 'paused', stopDeadline: expect.any(Date), epoch: 1 });
        const [order] = await fleet.listStopRequests('w');
        expect(order).toMatchObject({ key, reason: 'paused' });
        expect(order?.graceMs).toBeGreaterThan(GRACE_MS - 30_000);
        expect(order?.graceMs).toBeLessThanOrEqual(GRACE_MS);
        expect([await fleet.renewLease(key, LEASE_MS), await fleet.isLive(key)]).toEqual(['applied', true]);
        expect(await fleet.appendEvents(key, [metrics(3, 3), checkpoint(4, 3), training(5, 3, 2)])).toMatchObject({ result: 'applied' });
        expect(await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn })).toBe('applied');
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'paused', stopReason: null, stopDeadline: null, infraFailures: 0 });
        expect(await records.listAttempts(jobId)).toMatchObject([{ outcome: 'stopped', stopReason: 'paused', step: 3, microBatchSize: 2, steppedAt: expect.any(Date) }]);
        expect((await steps.messages(jobId)).at(-1)).toBe('Job paused after step 3');
        expect([await waitingIds(), await stops()]).toEqual([[], []]);

        await resume(jobId);
        const [queued] = (await fleet.schedulingSnapshot(10)).jobs;
        expect(await records.getCheckpoint(queued?.resumeCheckpointId ?? '')).toMatchObject({ jobId, step: 3 });
        await steps.credit('w');
        expect((await steps.running(jobId, 'w')).epoch).toBe(2);
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'running', stopReason: null });
      });

      test('a pause that is taken back leaves the job in the queue', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.running(jobId, 'w');
        await pause(jobId);
        expect(await resume(jobId)).toMatchObject({ status: 'running', stopReason: 'resumed' });
        expect(await stops()).toEqual([[jobId, 'preempted', true]]);
        await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn });
        expect(await steps.status(jobId)).toBe('queued');
      });

      test('an assignment that was not acknowledged yet is not sent again, but stopped', async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.assigned(jobId, 'w');
        await pause(jobId);
        expect([await fleet.listUnacknowledged('w'), await stops()]).toEqual([[], [[jobId, 'paused', true]]]);
        expect(await fleet.revoke(key, 'not here')).toBe('applied');
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'paused', stopReason: null });
      });

      test.each([
        ['is lost', 'lost', crashed, { status: 'paused', infraFailures: 1 }],
        ['crashes', 'failed', crashed, { status: 'paused', infraFailures: 1 }],
      ] as const)('a job whose worker %s while it is being paused is paused', async (_what, outcome, failure, expected) => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.running(jobId, 'w', NO_LEASE_MS);
        await pause(jobId);
        expect(await fleet.endAttempt(key, { outcome, failure, after: retry })).toBe('applied');
        expect(await fleet.getJob(jobId)).toMatchObject(expected);
      });

      test('a job that ends, or is cancelled, before it is paused has ended', async () => {
        await steps.worker('w');
        await steps.worker('v');
        const [finished, cancelled] = [await steps.queued(), await steps.queued()];
        const key = await steps.running(finished, 'w');
        await steps.running(cancelled, 'v');
        await pause(finished);
        await pause(cancelled);
        expect(await fleet.complete(key, done)).toBe('applied');
        expect(await records.cancelJob(steps.teamId, cancelled)).toMatchObject({ status: 'cancelled', stopReason: null });
        expect([await steps.status(finished), await stops('v')]).toEqual(['succeeded', [[cancelled, 'cancelled', false]]]);
      });

      test('what cannot be paused or resumed says why', async () => {
        const [validating, queued, cancelled] = [await steps.create(), await steps.queued(), await steps.queued()];
        await records.cancelJob(steps.teamId, cancelled);
        for (const refused of [pause(validating), pause(cancelled), resume(queued), resume(cancelled)]) await expect(refused).rejects.toMatchObject({ code: 'illegal_transition' });
        const other = await records.ensureTeam('other');
        expect([await records.pauseJob(other.id, queued, 1), await records.resumeJob(other.id, queued), await records.setJobPriority(other.id, queued, 1)]).toEqual([null, null, null]);
      });

      test("the first request to stop stands, except that a user's pause goes over the others", async () => {
        const jobId = await steps.queued();
        await steps.worker('w');
        const key = await steps.running(jobId, 'w');
        const reason = async () => (await fleet.getJob(jobId))?.stopReason;
        expect(await fleet.requestStop({ jobId, epoch: key.epoch + 1 }, 'preempted', GRACE_MS)).toBe('stale');
        expect([await reason(), await fleet.requestStop(key, 'preempted', GRACE_MS), await reason()]).toEqual([null, 'applied', 'preempted']);
        const deadline = (await fleet.getJob(jobId))?.stopDeadline;
        await fleet.requestStop(key, 'drained', 2 * GRACE_MS);
        expect(await reason()).toBe('preempted');
        await pause(jobId);
        expect(await fleet.getJob(jobId)).toMatchObject({ stopReason: 'paused', stopDeadline: deadline });
        await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn });
        expect(await fleet.requestStop(key, 'preempted', GRACE_MS)).toBe('stale');
      });

      test.each<[string, (jobId: string, key: AttemptKey) => Promise<unknown>, readonly string[]]>([
        ['complete', (_jobId, key) => fleet.complete(key, done), ['succeeded']],
        ['cancel', (jobId) => records.cancelJob(steps.teamId, jobId), ['cancelled']],
        ['expire', (_jobId, key) => fleet.endAttempt(key, { outcome: 'lost', failure: crashed, after: retry }), ['paused']],
        ['stopped', (_jobId, key) => fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn }), ['paused']],
      ])('pause against %s: the record agrees with itself, whoever is first', async (_what, against, ends) => {
        await steps.worker('w');
        for (let round = 0; round < 8; round++) {
          const jobId = await steps.queued();
          const key = await steps.running(jobId, 'w', NO_LEASE_MS);
          const both = [() => pause(jobId).catch(() => 'refused'), () => against(jobId, key)];
          await Promise.all((round % 2 === 0 ? both : both.reverse()).map((act) => act()));
          const job = await fleet.getJob(jobId);
          expect(ends).toContain(job?.status);
          expect(job?.stopReason).toBeNull();
          await fleet.closeAttempt(key, 'stopped');
          expect(await fleet.listLiveAttempts('w')).toEqual([]);
          if (job?.status === 'paused') await records.cancelJob(steps.teamId, jobId);
          await steps.credit('w');
        }
      });
    });

    test('resume against the end of the pause: the job waits in the queue, however they meet', async () => {
      await steps.worker('w');
      for (let round = 0; round < 8; round++) {
        const jobId = await steps.queued();
        const key = await steps.running(jobId, 'w');
        await pause(jobId);
        const both = [() => resume(jobId), () => fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn })];
        await Promise.all((round % 2 === 0 ? both : both.reverse()).map((act) => act()));
        expect(await fleet.getJob(jobId)).toMatchObject({ status: 'queued', stopReason: null });
        await records.cancelJob(steps.teamId, jobId);
        await steps.credit('w');
      }
    });

    test('a drain that moves against a placement: the worker gets no job, or is asked to hand it back', async () => {
      for (let round = 0; round < 8; round++) {
        const jobId = await steps.queued();
        await steps.worker('w', { sessionId: `s${round}`, bootId: `boot-${round}` });
        const placement = await steps.placement(jobId, 'w');
        const both = [() => fleet.place(placement, LEASE_MS), () => records.drainWorker('w', { mode: 'move', graceMs: GRACE_MS })];
        await Promise.all((round % 2 === 0 ? both : both.reverse()).map((act) => act()));
        const [attempt] = await fleet.listLiveAttempts('w');
        expect(await fleet.getJob(jobId)).toMatchObject(attempt === undefined ? { status: 'queued' } : { status: 'running', stopReason: 'drained' });
        await records.cancelJob(steps.teamId, jobId);
        if (attempt !== undefined) await fleet.closeAttempt({ jobId, attemptId: attempt.id, epoch: attempt.epoch }, 'stopped');
        await records.setWorkerCordoned('w', false);
      }
    });

    test('a placement against a new priority or a pause: the job runs or waits, and a pause is never lost', async () => {
      await steps.worker('w');
      for (let round = 0; round < 8; round++) {
        const jobId = await steps.queued();
        const placement = await steps.placement(jobId, 'w');
        const refused = () => null;
        const acts = [() => fleet.place(placement, LEASE_MS), () => pause(jobId), () => records.setJobPriority(steps.teamId, jobId, round).catch(refused)];
        await Promise.all((round % 2 === 0 ? acts : acts.reverse()).map((act) => act()));
        const job = await fleet.getJob(jobId);
        expect(['paused', 'running']).toContain(job?.status);
        expect(job?.stopReason).toBe(job?.status === 'running' ? 'paused' : null);
        await records.cancelJob(steps.teamId, jobId);
        for (const { id, epoch } of await fleet.listLiveAttempts('w')) await fleet.closeAttempt({ jobId, attemptId: id, epoch }, 'stopped');
        await steps.credit('w');
      }
    });

    test('the priority of a waiting job moves it in the queue; that of a running one is refused', async () => {
      const [first, second, running] = [await steps.queued(), await steps.queued(), await steps.queued({ priority: 90 })];
      await steps.worker('w');
      await steps.running(running, 'w');
      expect(await records.setJobPriority(steps.teamId, second, 5)).toMatchObject({ priority: 5 });
      expect(await waitingIds()).toEqual([second, first]);
      await expect(records.setJobPriority(steps.teamId, running, 1)).rejects.toMatchObject({ code: 'illegal_transition' });
    });

    describe('jobs that run after others', () => {
      const after = (...afterJobIds: string[]) => steps.queued({ afterJobIds });
      const reason = async (id: string) => (await fleet.getJob(id))?.waitingReason;

      test('are placed once all of them have succeeded, and say meanwhile which ones they wait for', async () => {
        const [one, two] = [await steps.queued({ priority: 1 }), await steps.queued()];
        const child = await after(one, two);
        expect(await reason(child)).toBe(`waiting for ${[one, two].sort().map((id) => `${id} (queued)`).join(', ')} to succeed`);
        const { jobs, jobsNotShown } = await fleet.schedulingSnapshot(2);
        expect([jobs.map(({ id }) => id), jobsNotShown]).toEqual([[one, two], 0]);
        await steps.worker('w');
        await fleet.complete(await steps.running(one, 'w'), done);
        await fleet.explainDependents(10);
        expect([await reason(child), await waitingIds()]).toEqual([`waiting for ${two} (queued) to succeed`, [two]]);
        await steps.credit('w');
        await fleet.complete(await steps.running(two, 'w'), done);
        expect(await waitingIds()).toEqual([child]);
        expect(await fleet.getJob(child)).toMatchObject({ afterJobIds: [one, two] });
      });

      test.each<[string, (parent: string) => Promise<unknown>]>([
        ['cancelled', (parent) => records.cancelJob(steps.teamId, parent)],
        [
          'failed',
          async (parent) => {
            await steps.worker('w');
            await fleet.endAttempt(await steps.running(parent, 'w'), { outcome: 'failed', failure: crashed, after: { then: 'fail' } });
          },
        ],
      ])('are skipped when one of them is %s, and so are those after them', async (status, end) => {
        const [parent, other] = [await steps.queued(), await steps.queued()];
        const child = await after(parent, other);
        const paused = await after(parent);
        await pause(paused);
        const grandchild = await steps.create({ afterJobIds: [child] });
        await end(parent);
        expect(await fleet.getJob(child)).toMatchObject({ status: 'cancelled', error: { code: 'parent_not_succeeded', message: expect.stringContaining(parent) }, waitingReason: null });
        expect((await fleet.getJob(child))?.error?.message).toContain(status === 'failed' ? 'has failed' : 'was cancelled');
        expect((await fleet.getJob(grandchild))?.error?.message).toContain(child);
        expect([await steps.status(paused), await steps.status(other), await fleet.skipOrphans(10)]).toEqual(['cancelled', 'queued', []]);
      });

      test('are skipped when intake refuses one of them', async () => {
        const parent = await steps.create();
        const child = await after(parent);
        await records.refuseJob(parent, { ...crashed, class: 'user' });
        expect(await steps.status(child)).toBe('cancelled');
      });

      test('must be of the same team, exist, and still be able to succeed; a repeated request is answered all the same', async () => {
        const parent = await steps.queued();
        const foreign = await steps.create({ teamId: (await records.ensureTeam('other')).id });
        const idempotency = { key: 'key', requestHash: 'hash' };
        const child = await steps.create({ afterJobIds: [parent], idempotency });
        await records.cancelJob(steps.teamId, parent);
        for (const [id, why] of [['ftjob-none', 'parent_not_found'], [foreign, 'parent_not_found'], [parent, 'parent_not_succeeded']] as const) {
          await expect(steps.create({ afterJobIds: [id] })).rejects.toMatchObject({ code: 'invalid_input', reason: why, param: 'after' });
        }
        expect(await steps.create({ afterJobIds: [parent], idempotency })).toBe(child);
      });

      test('made while one of them ends: refused, or skipped, never left waiting', async () => {
        for (let round = 0; round < 8; round++) {
          const parent = await steps.queued();
          const make = () => steps.create({ afterJobIds: [parent] }).catch((error: { reason?: string }) => ({ refused: error.reason }));
          const cancel = () => records.cancelJob(steps.teamId, parent);
          const [made] = round % 2 === 0 ? await Promise.all([make(), cancel()]) : (await Promise.all([cancel(), make()])).reverse();
          if (typeof made === 'string') expect(await steps.status(made)).toBe('cancelled');
          else expect(made).toEqual({ refused: 'parent_not_succeeded' });
        }
      });
    });

    describe('workers', () => {
      beforeEach(() => steps.worker('w'));
      const worker = async () => (await records.listWorkers())[0];

      test('a cordon keeps its reason through a restart of the worker, and loses it with the cordon', async () => {
        await records.setWorkerCordoned('w', true, 'new disk');
        await steps.worker('w', { bootId: 'boot-2', sessionId: 's2', labels: { zone: 'a' } });
        expect(await worker()).toMatchObject({ cordoned: true, cordonReason: 'new disk', labels: { zone: 'a' } });
        expect(await records.setWorkerCordoned('w', false)).toMatchObject({ cordoned: false, cordonReason: null, uncordonedAt: expect.any(Date) });
      });

      test('a drain that moves asks for the job at once; one that waits asks when its time is over', async () => {
        const jobId = await steps.queued();
        const key = await steps.running(jobId, 'w');
        expect([...(await records.countLiveAttempts())]).toEqual([['w', 1]]);
        expect(await records.drainWorker('w', { mode: 'wait', graceMs: GRACE_MS })).toMatchObject({ cordoned: true, drain: 'wait', drainDeadline: null });
        expect([await fleet.stopDrained(GRACE_MS), await stops()]).toEqual([[], []]);
        await records.drainWorker('w', { mode: 'wait', deadlineMs: 0, graceMs: GRACE_MS });
        expect(await stops()).toEqual([[jobId, 'preempted', true]]);
        expect(await fleet.stopDrained(GRACE_MS)).toEqual([]);
        await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn });
        expect([await fleet.getJob(jobId), (await records.listAttempts(jobId))[0], (await records.countLiveAttempts()).size]).toMatchObject([{ status: 'queued' }, { stopReason: 'drained' }, 0]);
        expect(await records.setWorkerCordoned('w', false)).toMatchObject({ cordoned: false, drain: null, drainDeadline: null });

        await steps.credit('w');
        await steps.running(jobId, 'w');
        await records.drainWorker('w', { mode: 'move', graceMs: GRACE_MS });
        expect(await stops()).toEqual([[jobId, 'preempted', true]]);
        expect(await records.drainWorker('none', { mode: 'move', graceMs: 1 })).toBeNull();
      });

      test('infrastructure failures are counted since the last uncordon, others are not', async () => {
        const fail = async (failure: Failure) => {
          const jobId = await steps.queued();
          await fleet.endAttempt(await steps.running(jobId, 'w'), { outcome: 'failed', failure, after: { then: 'fail' } });
          await steps.credit('w');
          return jobId;
        };
        const failed = await fail(crashed);
        await fail({ ...crashed, class: 'user' });
        expect(await fleet.listInfraFailures('w', 3_600_000)).toEqual([{ jobId: failed, code: 'engine_crashed' }]);
        expect(await fleet.listInfraFailures('w', 0)).toEqual([]);
        expect([await fleet.cordonWorker('w', 'automatic'), await fleet.cordonWorker('w', 'again')]).toEqual([true, false]);
        expect(await worker()).toMatchObject({ cordoned: true, cordonReason: 'automatic' });
        await records.setWorkerCordoned('w', false);
        expect(await fleet.listInfraFailures('w', 3_600_000)).toEqual([]);
      });

      test('an attempt that trains without new steps is quiet, noted as stuck once, and forgiven when it goes on', async () => {
        const jobId = await steps.queued();
        const key = await steps.running(jobId, 'w');
        await fleet.appendEvents(key, [metrics(1, 1), training(2, 1)]);
        expect(await fleet.listQuiet(600_000, 10)).toEqual([]);
        expect(await fleet.listQuiet(0, 10)).toMatchObject([{ attempt: { id: key.attemptId, step: 1 }, medianStepMs: null }]);
        for (let step = 2; step <= 6; step++) await fleet.appendEvents(key, [metrics(step + 1, step)]);
        const [quiet] = await fleet.listQuiet(0, 10);
        expect(quiet?.medianStepMs).toBeGreaterThan(0);
        expect(quiet?.medianStepMs).toBeLessThan(60_000);
        expect([await fleet.noteStuck(key, 'no step'), await fleet.noteStuck(key, 'no step')]).toEqual([true, false]);
        expect((await steps.messages(jobId)).filter((message) => message === 'Stuck: no step')).toHaveLength(1);
        await fleet.appendEvents(key, [metrics(8, 7)]);
        expect((await fleet.listLiveAttempts('w'))[0]).toMatchObject({ stuckAt: null, step: 7 });
        await pause(jobId);
        expect(await fleet.listQuiet(0, 10)).toEqual([]);
      });

      test('an attempt is stuck from when its agent says so until the agent says otherwise or it makes a step', async () => {
        const jobId = await steps.queued();
        const key = await steps.running(jobId, 'w');
        const stuckAt = async (): Promise<Date | null | undefined> => (await fleet.listLiveAttempts('w'))[0]?.stuckAt;
        const says = (seq: number, code: string): WorkerEvent => ({ seq, type: 'log', level: 'warn', message: code, data: { code } });
        await fleet.appendEvents(key, [says(1, 'stuck')]);
        expect(await stuckAt()).toBeInstanceOf(Date);
        expect(await fleet.noteStuck(key, 'no step')).toBe(false);
        await fleet.appendEvents(key, [says(2, 'unstuck')]);
        expect(await stuckAt()).toBeNull();
        await fleet.appendEvents(key, [metrics(3, 1), says(4, 'stuck')]);
        const since = await stuckAt();
        expect(since).toBeInstanceOf(Date);
        await fleet.appendEvents(key, [says(5, 'stuck'), says(6, 'other')]);
        expect(await stuckAt()).toEqual(since);
        await fleet.appendEvents(key, [metrics(7, 2)]);
        expect(await stuckAt()).toBeNull();
      });

      test('an attempt that does not hand its job back in time is overdue until it has', async () => {
        const jobId = await steps.queued();
        const key = await steps.running(jobId, 'w');
        const overdue = async (ms: number): Promise<readonly string[]> => (await fleet.listOverdueStops(ms, 10)).map(({ id }) => id);
        expect(await overdue(0)).toEqual([]);
        await fleet.requestStop(key, 'paused', 0);
        expect([await overdue(600_000), await overdue(-1)]).toEqual([[], [key.attemptId]]);
        await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn });
        expect(await overdue(-1)).toEqual([]);
      });

      test('a queued job is unevaluated until it is told why it waits, and not while it waits for others or runs', async () => {
        const jobId = await steps.queued();
        await steps.queued({ afterJobIds: [jobId] });
        expect([await fleet.listUnevaluated(600_000, 10), await fleet.listUnevaluated(-1_000, 10)]).toEqual([[], [jobId]]);
        await fleet.noteWaiting(new Map([[jobId, { code: 'workers_busy', text: 'all busy', position: 1, estimatedStartMs: null }]]));
        expect(await fleet.listUnevaluated(-1_000, 10)).toEqual([]);
        const key = await steps.running(jobId, 'w');
        await fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: goOn });
        expect([await fleet.listUnevaluated(600_000, 10), await fleet.listUnevaluated(-1_000, 10)]).toEqual([[], [jobId]]);
      });
    });
  });
}

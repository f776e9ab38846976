import { newId } from '@tunefleet/foundation';
import type { FleetAccess, JoinResult, NewJoinToken, WorkerScope } from '../fleet-access';
import { LEASE_MS, StoreSteps, type StoreUnderTest } from './store-under-test';

const any: WorkerScope = { namePattern: null, labels: null };
const HASH = 'a'.repeat(64);
const OTHER_HASH = 'b'.repeat(64);

/** Join tokens, credentials and what a worker holds. Call at the top level of a spec file. */
export function fleetAccessConformance(name: string, open: () => Promise<StoreUnderTest & { readonly access: FleetAccess }>): void {
  describe(`fleet access: ${name}`, () => {
    let steps: StoreSteps;
    let access: FleetAccess;
    beforeEach(async () => {
      const store = await open();
      steps = await StoreSteps.of(store);
      ({ access } = store);
    });
    afterEach(() => steps.store.close());

    const token = (changes: Partial<NewJoinToken> = {}) => access.createJoinToken({ id: newId('joinToken'), secretHash: HASH, note: null, maxUses: 1, expiresInMs: null, scope: any, ...changes });
    const join = (workerId: string, joinTokenId: string | null, secretHash = HASH): Promise<JoinResult> => access.join({ workerId, secretHash, joinTokenId, scope: any });

    describe('join tokens', () => {
      test('are kept with their scope, newest first, without saying their hash in lists', async () => {
        const first = await token({ note: 'rack', scope: { namePattern: 'gpu-*', labels: { zone: 'b' } } });
        const second = await token({ expiresInMs: 3_600_000, maxUses: null });
        expect(first).toMatchObject({ state: 'usable', uses: 0, maxUses: 1, note: 'rack', scope: { namePattern: 'gpu-*', labels: { zone: 'b' } }, expiresAt: null, lastUsedAt: null });
        const listed = await access.listJoinTokens(10);
        expect(listed.map(({ id }) => id)).toEqual([second.id, first.id]);
        expect(JSON.stringify(listed)).not.toContain(HASH);
        expect(await access.getJoinToken(first.id)).toMatchObject({ id: first.id, secretHash: HASH });
        expect(await access.getJoinToken('jtok-none')).toBeNull();
      });

      test('end by use, by time, by revocation', async () => {
        const [used, expired, revoked] = [await token(), await token({ expiresInMs: 0 }), await token()];
        expect(await join('wrk-a', used.id)).toBe('joined');
        expect(await access.revokeJoinToken(revoked.id)).toMatchObject({ state: 'revoked' });
        expect(await access.revokeJoinToken('jtok-none')).toBeNull();
        for (const { id } of [used, expired, revoked]) expect(await join(`wrk-of-${id}`, id)).toBe('token_spent');
        expect((await access.listJoinTokens(10)).map(({ state }) => state).sort()).toEqual(['expired', 'revoked', 'used_up']);
      });

      test('let in no more than they say, however many come at once', async () => {
        const { id } = await token({ maxUses: 3 });
        const results = await Promise.all(Array.from({ length: 8 }, (_, i) => join(`wrk-${i}`, id)));
        expect(results.filter((result) => result === 'joined')).toHaveLength(3);
        expect(results.filter((result) => result === 'token_spent')).toHaveLength(5);
        expect(await access.getJoinToken(id)).toMatchObject({ uses: 3 });
      });
    });

    describe('credentials', () => {
      test('one secret per id; repeating it spends nothing', async () => {
        const { id } = await token({ maxUses: 2 });
        expect([await join('wrk-a', id), await join('wrk-a', id), await join('wrk-a', id, OTHER_HASH), await join('wrk-a', null, OTHER_HASH)]).toEqual(['joined', 'again', 'taken', 'taken']);
        expect(await access.getJoinToken(id)).toMatchObject({ uses: 1 });
        expect(await access.getCredential('wrk-a')).toEqual({ workerId: 'wrk-a', secretHash: HASH, scope: any, revokedAt: null });
        expect(await access.getCredential('wrk-b')).toBeNull();
      });

      test('a revoked worker gives its job back, counts as no failure and cannot come back by any way', async () => {
        const jobId = await steps.queued();
        await join('w', null);
        await steps.worker('w');
        const key = await steps.running(jobId, 'w');
        expect(await access.revokeWorker('w', 'stolen')).toMatchObject({ releasedJobs: 1, worker: { status: 'offline', cordoned: true, cordonReason: 'revoked: stolen', sessionId: null, credit: 0 } });
        expect(await steps.store.fleet.getJob(jobId)).toMatchObject({ status: 'queued', infraFailures: 0 });
        expect(await steps.store.fleet.renewLease(key, LEASE_MS)).toBe('stale');
        expect(await steps.store.fleet.touchWorker('w', 'session-w', {})).toBe(false);
        expect([await join('w', null), await join('w', null, OTHER_HASH)]).toEqual(['revoked', 'revoked']);
        await expect(steps.worker('w')).rejects.toMatchObject({ code: 'permission_denied' });
        expect(await access.revokeWorker('w', 'stolen')).toMatchObject({ releasedJobs: 0 });
        expect(await steps.messages(jobId)).toContain('The job was taken back: its worker was revoked');
      });

      test('one that never joined, or never connected, can be barred, too', async () => {
        await steps.worker('old');
        expect(await access.revokeWorker('old', null)).toMatchObject({ worker: { cordonReason: 'revoked' } });
        expect(await join('old', null)).toBe('revoked');
        await join('wrk-quiet', null);
        expect(await access.revokeWorker('wrk-quiet', null)).toEqual({ worker: null, releasedJobs: 0 });
        expect(await join('wrk-quiet', null)).toBe('revoked');
        expect(await access.revokeWorker('wrk-none', null)).toBeNull();
      });
    });

    describe('what a worker holds', () => {
      const artifact = { name: 'a.bin', sha256: 'c'.repeat(64), bytes: 5 };

      test('its own live attempt, of its present boot, and nothing else', async () => {
        const jobId = await steps.queued({}, { rows: 'here' });
        await steps.worker('w');
        await steps.worker('x');
        const key = await steps.running(jobId, 'w');
        expect(await access.inputsOf('w', key)).toEqual({ workerSpec: { rows: 'here' }, resume: [] });
        expect(await access.isHeldBy('w', key)).toBe(true);
        for (const [worker, other] of [['x', key], ['w', { ...key, epoch: 2 }], ['w', { ...key, jobId: 'x' }], ['w', { ...key, attemptId: 'x' }]] as const) {
          expect([await access.inputsOf(worker, other), await access.isHeldBy(worker, other), await access.noteUpload(worker, other, artifact)]).toEqual([null, false, false]);
        }
        await steps.worker('w', { bootId: 'boot-2', sessionId: 'later' });
        expect(await access.isHeldBy('w', key)).toBe(false);
      });

      test('what was sent is known by job and size', async () => {
        const [jobId, otherId] = [await steps.queued(), await steps.queued()];
        await steps.worker('w');
        const key = await steps.running(jobId, 'w');
        expect(await access.missingUploads(jobId, [artifact])).toEqual([artifact]);
        expect([await access.noteUpload('w', key, artifact), await access.noteUpload('w', key, artifact)]).toEqual([true, true]);
        expect(await access.missingUploads(jobId, [artifact])).toEqual([]);
        expect(await access.missingUploads(jobId, [{ ...artifact, bytes: 6 }])).toHaveLength(1);
        expect(await access.missingUploads(otherId, [artifact])).toEqual([artifact]);
        const other = { name: 'b.bin', sha256: 'd'.repeat(64), bytes: 7 };
        await access.noteUpload('w', key, other);
        expect([await access.unpublishedBytes(jobId), await access.unpublishedBytes(otherId)]).toEqual([12, 0]);
        await steps.store.fleet.appendEvents(key, [{ seq: 1, type: 'checkpoint', step: 1, artifacts: [artifact], metrics: {} }]);
        expect(await access.unpublishedBytes(jobId)).toBe(7);
        await steps.store.records.cancelJob(steps.teamId, jobId);
        expect(await access.noteUpload('w', key, artifact)).toBe(false);
      });
    });
  });
}

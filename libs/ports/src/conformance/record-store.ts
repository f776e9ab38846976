import { newId } from '@tunefleet/foundation';
import type { RecordStore } from '../record-store';
import type { Page } from '../records';
import { StoreSteps, type StoreUnderTest } from './store-under-test';

/** What every RecordStore must do. Call at the top level of a spec file. @param open an empty store, closed by the suite */
export function recordStoreConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`RecordStore: ${name}`, () => {
    let steps: StoreSteps;
    let records: RecordStore;
    beforeEach(async () => {
      steps = await StoreSteps.of(await open());
      records = steps.store.records;
    });
    afterEach(() => steps.store.close());

    const file = (filename: string) => records.createFile({ teamId: steps.teamId, filename, purpose: 'fine-tune', bytes: 5_000_000_000, sha256: 'a'.repeat(64), expiresAt: null });

    test('a team is made once, however often and by whomever it is asked for', async () => {
      const teams = await Promise.all(Array.from({ length: 5 }, () => records.ensureTeam('new-team')));
      expect(new Set(teams.map((team) => team.id)).size).toBe(1);
      expect(teams[0]?.id).not.toBe(steps.teamId);
    });

    describe('jobs', () => {
      test('the same idempotency key gives the same job, also when both come at once; another request under it is refused', async () => {
        const request = (requestHash: string, key = 'key') => ({ id: newId('fineTuningJob'), teamId: steps.teamId, kind: 'fine-tune' as const, spec: { n: 1 }, baseModel: 'm', metadata: null, priority: 0, queue: 'tune', idempotency: { key, requestHash } });
        const answers = await Promise.all(Array.from({ length: 6 }, () => records.createJob(request('hash'))));
        expect(new Set(answers.map(({ job }) => job.id)).size).toBe(1);
        expect(answers.filter(({ created }) => created)).toHaveLength(1);
        await expect(records.createJob(request('other hash'))).rejects.toMatchObject({ code: 'conflict', reason: 'idempotency_key_reused', retry: 'never' });
        expect((await records.createJob(request('other hash', 'other key'))).created).toBe(true);
        expect((await records.listJobs(steps.teamId, { limit: 10 })).items).toHaveLength(2);
        const owed: string[] = [];
        await steps.store.outbox.relay(10, async (message) => void owed.push(message.messageId));
        expect(owed).toHaveLength(2);
      });

      test('is seen by its team only', async () => {
        const id = await steps.create();
        const other = await records.ensureTeam('other');
        expect(await records.getJob(steps.teamId, id)).toMatchObject({ id, status: 'validating_files', epoch: 0 });
        expect([await records.getJob(other.id, id), await records.cancelJob(other.id, id)]).toEqual([null, null]);
        expect((await records.listJobs(other.id, { limit: 10 })).items).toEqual([]);
        await expect(records.listJobs(other.id, { limit: 10, after: id })).rejects.toMatchObject({ code: 'not_found' });
        expect(await steps.status(id)).toBe('validating_files');
      });

      test('lists newest first, page by page, by kind, status and metadata', async () => {
        const ids: string[] = [];
        for (let n = 0; n < 7; n++) ids.push(await steps.create({ kind: n === 3 ? 'eval' : 'fine-tune', metadata: n === 5 ? { run: 'five', size: 's' } : n === 6 ? {} : null }));
        const newestFirst = [...ids].reverse();
        expect(await pages((after) => records.listJobs(steps.teamId, { limit: 3, ...after }))).toEqual([newestFirst.slice(0, 3), newestFirst.slice(3, 6), newestFirst.slice(6)]);
        const only = async (filter: object) => (await records.listJobs(steps.teamId, { limit: 10, ...filter })).items.map((job) => job.id);
        expect(await only({ kind: 'eval' })).toEqual([ids[3]]);
        expect(await only({ metadata: { run: 'five' } })).toEqual([ids[5]]);
        expect(await only({ metadata: { run: 'six' } })).toEqual([]);
        expect(await only({ metadata: null })).toEqual(newestFirst.filter((id) => id !== ids[5]));
        await records.cancelJob(steps.teamId, ids[0] ?? '');
        expect(await only({ status: 'cancelled' })).toEqual([ids[0]]);
        expect(await records.countJobs()).toEqual({ validating_files: 6, cancelled: 1 });
        await expect(records.listJobs(steps.teamId, { limit: 3, after: 'ftjob-nothing' })).rejects.toMatchObject({ code: 'not_found', param: 'after' });
      });

      test('is admitted or refused once, and neither after a cancel', async () => {
        const [admitted, refused, cancelled] = [await steps.create(), await steps.create(), await steps.create()];
        const failure = { class: 'user' as const, code: 'invalid_training_file', message: `row 3: \u0000 ${'x'.repeat(5000)}`, param: 'training_file', logTail: [] };
        expect((await records.listUnvalidatedJobs(0, 10)).map((job) => job.id)).toEqual([admitted, refused, cancelled]);
        expect([await steps.admit(admitted), await steps.admit(admitted), await records.refuseJob(admitted, failure)]).toEqual([true, false, false]);
        expect([await records.refuseJob(refused, failure), await steps.admit(refused)]).toEqual([true, false]);
        await records.cancelJob(steps.teamId, cancelled);
        expect([await steps.admit(cancelled), await records.refuseJob(cancelled, failure)]).toEqual([false, false]);
        expect(await records.getJobForIntake(admitted)).toMatchObject({ status: 'queued', memoryBytesEstimate: 1000, totalSteps: 10, queuedAt: expect.any(Date) });
        expect(await records.getJobForIntake(refused)).toMatchObject({ status: 'failed', error: { class: 'user', code: 'invalid_training_file', param: 'training_file' }, finishedAt: expect.any(Date) });
        expect(await records.listUnvalidatedJobs(0, 10)).toEqual([]);
        expect(await steps.messages(admitted)).toEqual([`Job created: ${admitted}`, 'Files validated, moving job to queued state']);
      });

      test('cancelling twice is one cancel; what has ended otherwise cannot be cancelled', async () => {
        const id = await steps.create();
        const [first, second] = await Promise.all([records.cancelJob(steps.teamId, id), records.cancelJob(steps.teamId, id)]);
        expect(first).toEqual(second);
        expect(first).toMatchObject({ status: 'cancelled', epoch: 1 });
        expect(await steps.messages(id)).toEqual([`Job created: ${id}`, 'Job cancelled']);
        const failed = await steps.create();
        await records.refuseJob(failed, { class: 'user', code: 'x', message: 'x', param: null, logTail: [] });
        await expect(records.cancelJob(steps.teamId, failed)).rejects.toMatchObject({ code: 'illegal_transition' });
      });
    });

    describe('events', () => {
      test('keep their order and page by it, whoever writes them; texts that a database may refuse are kept as far as they can be', async () => {
        const id = await steps.create();
        await Promise.all(Array.from({ length: 5 }, (_, n) => records.appendEvent({ jobId: id, level: 'info', type: 'message', message: `m${n}`, data: null })));
        await records.appendEvent({ jobId: id, level: 'warn', type: 'message', message: `\u0000${'😀'.repeat(3000)}`, data: { 'k\u0000': ['\\u0000', '\ud83d'] } });
        await records.appendEvent({ jobId: 'ftjob-none', level: 'info', type: 'message', message: 'lost', data: null });
        const { items } = await records.listEvents(id, { limit: 100 });
        expect(items).toHaveLength(7);
        expect(items.map((event) => event.id)).toEqual(items.map((event) => event.id).sort().reverse());
        expect(items[0]).toMatchObject({ level: 'warn', data: { 'k\ufffd': ['\\u0000', '\ufffd'] } });
        expect(items[0]?.message.length).toBeGreaterThan(3000);
        expect((await pages((after) => records.listEvents(id, { limit: 3, ...after }))).flat()).toEqual(items.map((event) => event.id));
        for (const after of ['ftevent-999999999999', 'nonsense', (await records.listEvents(await steps.create(), { limit: 1 })).items[0]?.id ?? '']) {
          await expect(records.listEvents(id, { limit: 3, after })).rejects.toMatchObject({ code: 'not_found' });
        }
      });

      test('can be said once, with a text that a database may refuse, too', async () => {
        const [id, other] = [await steps.create(), await steps.create()];
        const event = { jobId: id, level: 'info' as const, type: 'message' as const, message: 'a\u0000b', data: null };
        for (let n = 0; n < 2; n++) await records.appendEventOnce(event);
        await records.appendEventOnce({ ...event, jobId: other });
        expect((await steps.messages(id)).slice(1)).toEqual(['a\ufffdb']);
        expect((await steps.messages(other)).slice(1)).toEqual(['a\ufffdb']);
      });
    });

    describe('files', () => {
      test('are listed in both orders and by purpose, also from one that has been deleted meanwhile', async () => {
        const files = [await file('a'), await file('b'), await file('c')];
        const [a, b, c] = files.map(({ id }) => id);
        expect(files[0]).toMatchObject({ bytes: 5_000_000_000, status: 'uploaded', deletedAt: null });
        const listed = async (request: { order: 'asc' | 'desc'; purpose?: string; after?: string }) => (await records.listFiles(steps.teamId, { limit: 10, ...request })).items.map(({ id }) => id);
        expect(await listed({ order: 'asc' })).toEqual([a, b, c]);
        expect(await listed({ order: 'desc', purpose: 'fine-tune' })).toEqual([c, b, a]);
        expect(await listed({ order: 'desc', purpose: 'eval' })).toEqual([]);
        await records.deleteFile(steps.teamId, b ?? '');
        expect(await listed({ order: 'desc', after: b ?? '' })).toEqual([a]);
        expect(await listed({ order: 'asc' })).toEqual([a, c]);
        expect(await records.getFile(steps.teamId, b ?? '')).toBeNull();
        await records.setFileStatus(a ?? '', 'error', 'row 1: \u0000');
        expect(await records.getFile(steps.teamId, a ?? '')).toMatchObject({ status: 'error', statusDetails: 'row 1: \ufffd' });
      });

      test('cannot be deleted while a live job uses them, wherever in its spec; afterwards they can', async () => {
        const { id } = await file('train');
        const jobId = await steps.create({ spec: { data: [{ training_file: id }] } });
        await expect(records.deleteFile(steps.teamId, id)).rejects.toMatchObject({ code: 'invalid_input', reason: 'file_in_use', param: 'file_id', details: { jobId } });
        await records.cancelJob(steps.teamId, jobId);
        expect(await records.deleteFile(steps.teamId, id)).toMatchObject({ id, deletedAt: expect.any(Date) });
        expect(await records.deleteFile(steps.teamId, id)).toBeNull();
        expect(await records.deleteFile((await records.ensureTeam('other')).id, (await file('mine')).id)).toBeNull();
      });

      test('the same content under the same format is one dataset version, also when written at once', async () => {
        const version = { teamId: steps.teamId, contentHash: 'h', format: 'chat', rowCount: 3, summary: { rows: 3 } };
        const versions = await Promise.all(Array.from({ length: 8 }, () => records.upsertDatasetVersion(version)));
        expect(new Set(versions.map(({ id }) => id)).size).toBe(1);
        expect((await records.upsertDatasetVersion({ ...version, format: 'completion' })).id).not.toBe(versions[0]?.id);
        const learnt = { ...version, summary: { rows: 3, duplicates: 1 } };
        for (let n = 0; n < 2; n++) expect(await records.upsertDatasetVersion(learnt)).toEqual({ ...versions[0], ...learnt });
      });
    });

    test('an operator cordons a worker, and the cordon outlives its restart', async () => {
      await steps.worker('w');
      expect(await records.setWorkerCordoned('w', true)).toMatchObject({ cordoned: true });
      await steps.worker('w', { bootId: 'boot-2', sessionId: 's2' });
      expect(await records.listWorkers()).toMatchObject([{ id: 'w', bootId: 'boot-2', cordoned: true }]);
      expect(await records.setWorkerCordoned('nobody', true)).toBeNull();
    });
  });
}

/** Ids of every page, following `after`. */
async function pages<T extends { readonly id: string }>(list: (after: { after?: string }) => Promise<Page<T>>): Promise<string[][]> {
  const all: string[][] = [];
  for (let after: { after?: string } = {}; ; ) {
    const { items, hasMore } = await list(after);
    all.push(items.map(({ id }) => id));
    const last = items.at(-1);
    if (!hasMore || last === undefined) return all;
    after = { after: last.id };
  }
}

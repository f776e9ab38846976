/**
 * Who may speak for a worker and what a worker may touch: real gRPC, real record, real worker processes, and beside them a raw client that says
 * what no worker would. Method: a good worker holds a job at a step while the bad one tries; then the job must end as if nothing had been.
 */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { fleet as wire } from '@tunefleet/contracts';
import { newId, sha256Hex, type Logger } from '@tunefleet/foundation';
import type { WorkerScope } from '@tunefleet/ports';
import type { EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { pino } from 'pino';
import { anyWorker, hashSecret, newSecret } from './admission';
import { bundleWorker, FleetHarness, removeBundles, until, WORKER_TOKEN, type HarnessOptions, type TestWorker } from './testing/fleet-harness';
import { RawWorker } from './testing/raw-worker';
import { firstFit, startTestPostgres } from './testing/test-record';

let postgresDir: string;
let postgres: EmbeddedPostgres;
let fleet: FleetHarness;
let raws: RawWorker[] = [];
let logged = '';

beforeAll(async () => {
  await bundleWorker();
  postgresDir = await mkdtemp(join(tmpdir(), 'fleet-security-'));
  postgres = await startTestPostgres(postgresDir);
}, 120_000);
afterAll(async () => {
  await postgres.stop();
  await rm(postgresDir, { recursive: true, force: true });
  await removeBundles();
}, 60_000);
afterEach(async () => {
  for (const raw of raws) raw.close();
  raws = [];
  await fleet.close();
}, 60_000);

const TEST_MS = 60_000;

/** Raw workers do not beat: the server listens longer than it would. */
const SILENCE_MS = 60_000;

async function open({ server, ...options }: HarnessOptions = {}): Promise<void> {
  logged = '';
  const sink = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      logged += chunk.toString();
      done();
    },
  });
  fleet = await FleetHarness.open(postgres.url, firstFit, { logger: pino({ level: 'debug' }, sink) as unknown as Logger, ...options, server: { ...server, settings: { silenceMs: SILENCE_MS, ...server?.settings } } });
}

function raw(id?: string): RawWorker {
  const worker = new RawWorker(fleet.address, id);
  raws.push(worker);
  return worker;
}

async function token(changes: { maxUses?: number | null; expiresInMs?: number | null; scope?: WorkerScope } = {}): Promise<{ readonly id: string; readonly text: string }> {
  const [id, secret] = [newId('joinToken'), newSecret()];
  await fleet.record.access.createJoinToken({ id, secretHash: hashSecret(secret), note: null, maxUses: 1, expiresInMs: null, scope: anyWorker, ...changes });
  return { id, text: `${id}.${secret}` };
}

const idOf = async (name: string): Promise<string> => (await readFile(join(fleet.dir, 'workers', name, 'worker-id'), 'utf8')).trim();
const ready = (worker: TestWorker): Promise<unknown> => new Promise((resolve) => worker.process.once('message', resolve));

/** A good worker that holds a job at a step. */
async function victim(): Promise<{ readonly jobId: string; readonly attempt: wire.AttemptRef; finish(): Promise<void> }> {
  const worker = fleet.startWorker('good');
  const gate = fleet.gate('victim');
  const jobId = await fleet.submit({ steps: 12, checkpointEvery: 5, holdAt: 8, gate });
  await fleet.untilStep(jobId, 7);
  const [held] = await fleet.attempts(jobId);
  if (held === undefined) throw new Error('no attempt');
  return {
    jobId,
    attempt: { jobId, attemptId: held.id, epoch: held.epoch },
    finish: async () => {
      await writeFile(gate, '');
      await fleet.untilStatus(jobId, 'succeeded');
      expect((await fleet.attempts(jobId)).map(({ outcome }) => outcome)).toEqual(['succeeded']);
      expect(await fleet.record.losses(jobId)).toEqual(Array.from({ length: 12 }, (_, i) => ({ name: 'loss', step: i + 1, value: 1 / (i + 1) })));
      expect(worker.process.exitCode).toBeNull();
    },
  };
}

/** A bad worker in good standing, with a job of its own. */
async function attacker(extra = {}): Promise<{ readonly worker: RawWorker; readonly own: wire.AttemptRef }> {
  const worker = raw();
  expect(await worker.join(WORKER_TOKEN)).toMatchObject({ status: 'OK' });
  worker.open({ credit: true });
  await worker.hear('welcome');
  const jobId = await fleet.submit({ steps: 5 }, extra);
  return { worker, own: await worker.takeJob(jobId) };
}

describe('joining', () => {
  test(
    'with a one-time token: once; from then on with a credential of its own, which only its owner can read',
    async () => {
      await open();
      const once = await token();
      const first = fleet.startWorker('first', { token: once.text });
      await ready(first);
      expect((await stat(join(fleet.dir, 'workers', 'first', 'credential'))).mode & 0o777).toBe(0o600);
      const second = fleet.startWorker('second', { token: once.text });
      expect(await second.exited).toBe(1);
      first.process.kill('SIGKILL');
      await first.exited;
      // Without a token: it has joined.
      const again = fleet.startWorker('first', { token: '' });
      await ready(again);
      const job = await fleet.submit({ steps: 3 });
      await fleet.untilStatus(job, 'succeeded');
      expect(await fleet.record.access.getJoinToken(once.id)).toMatchObject({ uses: 1, state: 'used_up' });
    },
    TEST_MS,
  );

  test(
    'saying it again spends nothing: the answer may have been lost',
    async () => {
      await open();
      const once = await token();
      const worker = raw();
      for (let i = 0; i < 3; i++) expect(await worker.join(once.text)).toMatchObject({ status: 'OK' });
      expect(await fleet.record.access.getJoinToken(once.id)).toMatchObject({ uses: 1 });
    },
    TEST_MS,
  );

  test(
    'what is refused, and with which words',
    async () => {
      await open({ server: { failedJoins: { failures: 100, withinMs: 60_000 } } });
      const [revoked, expired, narrow, fine] = [await token(), await token({ expiresInMs: 0 }), await token({ maxUses: null, scope: { namePattern: 'gpu-*', labels: { zone: 'b' } } }), await token({ maxUses: null })];
      await fleet.record.access.revokeJoinToken(revoked.id);
      const refusal = async (shown: string, changes = {}) => (await raw().join(shown, changes)).status;
      expect([await refusal(''), await refusal('wrong-token'), await refusal(`${fine.id}.${newSecret()}`), await refusal(`jtok-none.${newSecret()}`)]).toEqual(Array(4).fill('UNAUTHENTICATED'));
      expect([await refusal(revoked.text), await refusal(expired.text)]).toEqual(['PERMISSION_DENIED', 'PERMISSION_DENIED']);
      expect([await refusal(narrow.text), await refusal(narrow.text, { name: 'gpu-1', labels: { zone: 'a' } }), await refusal(narrow.text, { name: 'gpu-1', labels: { zone: 'b', x: 'y' } })]).toEqual(Array(3).fill('PERMISSION_DENIED'));
      expect([await refusal(fine.text, { secret: 'short' }), await refusal(fine.text, { workerId: '../x' }), await refusal(fine.text, { name: '' })]).toEqual(Array(3).fill('INVALID_ARGUMENT'));
      // What the token allowed holds for every later hello.
      const worker = raw();
      expect(await worker.join(narrow.text, { name: 'gpu-1' })).toMatchObject({ status: 'OK' });
      worker.open({ hello: { name: 'other' } });
      expect(await worker.ended()).toMatchObject({ status: 'PERMISSION_DENIED', details: expect.stringContaining('the name other does not fit gpu-*') });
      worker.open({ hello: { name: 'gpu-2', labels: { zone: 'b' } } });
      await worker.hear('welcome');
    },
    TEST_MS,
  );

  test(
    'the shared token can be switched off',
    async () => {
      await open({ server: { sharedToken: null } });
      expect(await raw().join(WORKER_TOKEN)).toMatchObject({ status: 'UNAUTHENTICATED' });
      expect(await raw().join((await token()).text)).toMatchObject({ status: 'OK' });
    },
    TEST_MS,
  );

  test(
    'guesses are slowed down; workers that have joined, from the same address, notice nothing',
    async () => {
      await open({ server: { failedJoins: { failures: 3, withinMs: 600_000 } } });
      const good = await victim();
      for (let i = 0; i < 3; i++) expect(await raw().join(`guess-number-${i}`)).toMatchObject({ status: 'UNAUTHENTICATED' });
      // Not even the right one is looked at now.
      expect(await raw().join(WORKER_TOKEN)).toMatchObject({ status: 'RESOURCE_EXHAUSTED', details: expect.stringMatching(/try again in \d+ s/) });
      fleet.proxy.cut();
      await good.finish();
    },
    TEST_MS,
  );
});

describe('the identity of a worker', () => {
  test(
    'is bound to its credential: nobody else can speak for it',
    async () => {
      await open();
      const good = await victim();
      const goodId = await idOf('good');
      const bad = raw();
      expect(await bad.join(WORKER_TOKEN)).toMatchObject({ status: 'OK' });
      bad.open({ hello: { workerId: goodId, bootId: 'boot-of-another' } });
      expect(await bad.ended()).toMatchObject({ status: 'PERMISSION_DENIED' });
      expect(await raw(goodId).join(WORKER_TOKEN)).toMatchObject({ status: 'PERMISSION_DENIED', details: expect.stringContaining('joined with another credential') });
      for (const shown of [`${goodId}.${bad.secret}`, `${goodId}.`, WORKER_TOKEN, bad.secret, '']) {
        bad.open({ shown, hello: { workerId: goodId } });
        expect(await bad.ended()).toMatchObject({ status: 'UNAUTHENTICATED' });
      }
      await good.finish();
    },
    TEST_MS,
  );

  test(
    'ends with a revocation: the stream and transfers at once, the job goes on elsewhere, the worker does not come back',
    async () => {
      await open();
      const leaving = fleet.startWorker('leaving');
      const job = await fleet.submit({ steps: 12, checkpointEvery: 5, holdAt: 8, gate: fleet.gate('mid') });
      await fleet.untilStep(job, 7);
      await until('its checkpoint', async () => (await fleet.record.fleet.latestCheckpoint(job)) !== null);
      const revocation = await fleet.record.access.revokeWorker(await idOf('leaving'), 'stolen');
      expect(revocation).toMatchObject({ releasedJobs: 1, worker: { status: 'offline', cordoned: true, cordonReason: 'revoked: stolen', sessionId: null } });
      expect(await leaving.exited).toBe(1);
      await fleet.openGate('mid');
      fleet.startWorker('next');
      await fleet.untilStatus(job, 'succeeded');
      expect((await fleet.attempts(job)).map(({ outcome }) => outcome)).toEqual(['stopped', 'succeeded']);
      expect((await fleet.record.fleet.getJob(job))?.infraFailures).toBe(0);
      expect((await fleet.attempts(job))[1]?.resumeCheckpointId).not.toBeNull();
      // Neither with its credential nor with a token that would let others join.
      expect(await fleet.startWorker('leaving').exited).toBe(1);
    },
    TEST_MS,
  );

  test(
    'a revoked worker in the middle of an upload and before its hello is cut off, too',
    async () => {
      await open();
      const { worker, own } = await attacker();
      const upload = worker.hangingPut(own, { name: 'big.bin', sha256: 'a'.repeat(64), bytes: 1_000_000 });
      await until('the upload to be under way', async () => (await worker.put(own, { name: 'x', sha256: sha256Hex(Buffer.from('x')), bytes: 1 }, [Buffer.from('x')])).status === 'OK');
      await fleet.record.access.revokeWorker(worker.id, null);
      expect(await worker.ended()).toMatchObject({ status: 'OK' });
      expect(await worker.hear('goodbye')).toMatchObject({ reason: 'this worker was revoked', reconnectAfterMs: 0 });
      expect(await upload).toMatchObject({ status: 'PERMISSION_DENIED' });
      expect(await worker.get(own, 'a'.repeat(64))).toMatchObject({ status: 'PERMISSION_DENIED' });
      worker.open();
      expect(await worker.ended()).toMatchObject({ status: 'PERMISSION_DENIED', details: expect.stringContaining('was revoked') });
      expect(await fleet.record.access.revokeWorker('wrk-unknown', null)).toBeNull();
    },
    TEST_MS,
  );
});

describe('what a worker may touch', () => {
  test(
    'on the stream: only attempts of its own',
    async () => {
      await open();
      const good = await victim();
      const { worker, own } = await attacker();
      const foreign = good.attempt;
      worker.say({ $case: 'events', value: { attempt: foreign, events: [{ seq: 1, timeMs: 0, payload: { $case: 'metrics', value: { step: 1, values: { loss: 666 } } } }] } });
      expect(await worker.hear('eventAck', ({ attempt }) => attempt?.attemptId === foreign.attemptId)).toMatchObject({ stale: true, seq: 0 });
      worker.say({ $case: 'finished', value: { attempt: foreign, lastSeq: 0, outcome: { $case: 'stopped', value: { reason: 'shutdown' } } } });
      expect(await worker.hear('finishedAck')).toMatchObject({ attempt: foreign, stale: true });
      worker.say({ $case: 'assignAck', value: { attempt: foreign, accepted: false, reason: 'mine now' } });
      worker.say({ $case: 'assignAck', value: { attempt: foreign, accepted: true, reason: '' } });
      worker.say({ $case: 'beat', value: { seq: 1, memoryBytesFree: 1, running: [{ attempt: foreign, step: 1, lastSeq: 0 }, { attempt: own, step: 0, lastSeq: 0 }] } });
      expect(await worker.hear('stop', ({ attempt }) => attempt?.attemptId === foreign.attemptId)).toMatchObject({ reason: 'stale' });
      await worker.hear('lease', ({ attempt }) => attempt?.attemptId === own.attemptId);
      expect(worker.heard.filter((message) => message.$case === 'lease' && message.value.attempt?.attemptId === foreign.attemptId)).toEqual([]);
      // A part of the key that is not the attempt's own is no better.
      worker.say({ $case: 'finished', value: { attempt: { ...own, jobId: foreign.jobId }, lastSeq: 0, outcome: { $case: 'stopped', value: { reason: 'x' } } } });
      await worker.hear('finishedAck', ({ attempt, stale }) => stale && attempt?.attemptId === own.attemptId);
      worker.close();
      // Nor is it believed that it runs what is another's.
      const again = raw();
      await again.join(WORKER_TOKEN);
      again.open({ hello: { running: [{ attempt: foreign, step: 3, lastSeq: 9 }] } });
      await again.hear('stop', ({ attempt }) => attempt?.attemptId === foreign.attemptId);
      again.close();
      await good.finish();
    },
    TEST_MS,
  );

  test(
    'of artifacts: the inputs of its live attempt, and what it sends for it',
    async () => {
      await open();
      const secretData = Buffer.from('the training data of somebody else');
      const foreignBlob = await fleet.record.blobs.put(one(secretData), { maxBytes: 1_000 });
      const good = await victim();
      const input = await fleet.record.blobs.put(one(Buffer.from('my rows')), { maxBytes: 1_000 });
      const { worker, own } = await attacker({ trainingFile: { name: 'rows.jsonl', ...input } });
      expect(await worker.get(own, input.sha256)).toMatchObject({ status: 'OK', bytes: Buffer.from('my rows') });
      expect(await worker.get(own, foreignBlob.sha256)).toMatchObject({ status: 'NOT_FOUND', bytes: Buffer.alloc(0) });
      expect(await worker.get(own, input.sha256, 99)).toMatchObject({ status: 'INVALID_ARGUMENT' });
      for (const key of [good.attempt, { ...own, epoch: own.epoch + 1 }, { ...own, jobId: good.jobId }]) {
        expect(await worker.get(key, input.sha256)).toMatchObject({ status: 'FAILED_PRECONDITION' });
        expect(await worker.put(key, { name: 'x', ...foreignBlob }, [secretData])).toMatchObject({ status: 'FAILED_PRECONDITION' });
      }
      // To know a hash is not to have the bytes: it neither counts as sent nor can it be made a checkpoint and read back.
      const claimed = { name: 'state.bin', ...foreignBlob };
      expect(await worker.put(own, claimed, [])).toMatchObject({ status: 'INVALID_ARGUMENT' });
      worker.say({ $case: 'events', value: { attempt: own, events: [{ seq: 1, timeMs: 0, payload: { $case: 'checkpoint', value: { step: 1, artifacts: [claimed], metrics: {} } } }] } });
      expect(await worker.hear('eventAck', ({ attempt }) => attempt?.attemptId === own.attemptId)).toMatchObject({ stale: false, seq: 1 });
      expect(await fleet.record.fleet.latestCheckpoint(own.jobId)).toBeNull();
      const ended = (await fleet.attempts(own.jobId)).length;
      worker.say({ $case: 'finished', value: { attempt: own, lastSeq: 1, outcome: { $case: 'succeeded', value: { resultJson: '{}', artifacts: [claimed] } } } });
      await worker.hear('finishedAck', ({ attempt }) => attempt?.attemptId === own.attemptId);
      expect((await fleet.attempts(own.jobId))[ended - 1]).toMatchObject({ outcome: 'failed', failure: { code: 'invalid_result', message: expect.stringContaining('never sent for this job') } });
      expect((await fleet.record.fleet.getJob(own.jobId))?.status).not.toBe('succeeded');
      worker.close();
      await good.finish();
    },
    TEST_MS,
  );
});

describe('bounds', () => {
  test(
    'too much of anything ends that one call; nothing is lost for the worker beside it',
    async () => {
      await open();
      const good = await victim();
      const { worker, own } = await attacker();
      const log = (message: string, dataJson = ''): wire.Event => ({ seq: 1, timeMs: 0, payload: { $case: 'log', value: { level: 'info', message, dataJson } } });
      const events = (list: wire.Event[]) => ({ $case: 'events', value: { attempt: own, events: list } }) as const;
      const refused: [string, Parameters<RawWorker['say']>[0]][] = [
        ['RESOURCE_EXHAUSTED', events([log('x'.repeat(5 * 1024 * 1024))])],
        ['INVALID_ARGUMENT', events([log('x'.repeat(8_001))])],
        ['INVALID_ARGUMENT', events(Array.from({ length: 1_001 }, (_, i) => ({ ...log('x'), seq: i + 1 })))],
        ['INVALID_ARGUMENT', events([])],
        ['INVALID_ARGUMENT', events([log('x', `{"a":${'['.repeat(60_000)}${']'.repeat(60_000)}}`)])],
        ['INVALID_ARGUMENT', events([log('x', `{"a":"${'x'.repeat(256 * 1024)}"}`)])],
        ['INVALID_ARGUMENT', events([{ seq: 1, timeMs: 0, payload: { $case: 'metrics', value: { step: 1, values: Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`m${i}`, 1])) } } }])],
        ['INVALID_ARGUMENT', { $case: 'beat', value: { seq: 1, memoryBytesFree: 1, running: Array.from({ length: 129 }, () => ({ attempt: own, step: 0, lastSeq: 0 })) } }],
        ['INVALID_ARGUMENT', { $case: 'credit', value: { jobs: 65, modelsOnDisk: [], modelInMemory: '' } }],
        ['INVALID_ARGUMENT', { $case: 'credit', value: { jobs: 1, modelsOnDisk: Array.from({ length: 1_001 }, () => 'm'), modelInMemory: '' } }],
        ['INVALID_ARGUMENT', { $case: 'assignAck', value: { attempt: own, accepted: true, reason: 'x'.repeat(1_001) } }],
      ];
      for (const [status, message] of refused) {
        worker.heard.length = 0;
        worker.open({ hello: { running: [{ attempt: own, step: 0, lastSeq: 0 }] } });
        await worker.hear('welcome');
        worker.say(message);
        expect({ message: message.$case, ...(await worker.ended()) }).toMatchObject({ status });
      }
      worker.open({ hello: { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, 'x'])) } });
      expect(await worker.ended()).toMatchObject({ status: 'INVALID_ARGUMENT', details: expect.stringContaining('labels') });
      worker.open({ metadata: { padding: 'x'.repeat(80_000) } });
      expect((await worker.ended()).status).not.toBe('OK');
      worker.open({ shown: 'x'.repeat(10_000) });
      expect(await worker.ended()).toMatchObject({ status: 'UNAUTHENTICATED' });
      worker.close();
      await good.finish();
    },
    TEST_MS,
  );

  test(
    'artifacts too large, wrongly described or too many at once are refused',
    async () => {
      await open({ server: { settings: { maxArtifactBytes: 1_000_000, maxArtifactCalls: 2 } } });
      const good = await victim();
      const { worker, own } = await attacker();
      const data = Buffer.alloc(5_000, 1);
      const artifact = { name: 'a.bin', sha256: sha256Hex(data), bytes: data.length };
      expect(await worker.put(own, artifact, [data, data])).toMatchObject({ status: 'INVALID_ARGUMENT' });
      expect(await worker.put(own, artifact, [data.subarray(1)])).toMatchObject({ status: 'INVALID_ARGUMENT' });
      expect(await worker.put(own, { ...artifact, bytes: 1_000_001 }, [data])).toMatchObject({ status: 'INVALID_ARGUMENT', details: expect.stringContaining('the limit is 1000000') });
      expect(await worker.put(own, { ...artifact, name: '../../etc/passwd' }, [data])).toMatchObject({ status: 'INVALID_ARGUMENT' });
      expect(await worker.put(own, artifact, [Buffer.alloc(5 * 1024 * 1024)])).toMatchObject({ status: 'RESOURCE_EXHAUSTED' });
      void worker.hangingPut(own, artifact);
      void worker.hangingPut(own, artifact);
      await until('a third call to be one too many', async () => (await worker.put(own, artifact, [data])).status === 'RESOURCE_EXHAUSTED');
      worker.close();
      await good.finish();
    },
    TEST_MS,
  );

  test(
    'a flood of messages from one worker does not hold up another',
    async () => {
      await open();
      const good = await victim();
      const { worker } = await attacker();
      for (let i = 1; i <= 2_000; i++) worker.say({ $case: 'beat', value: { seq: i, memoryBytesFree: 1, running: [] } });
      await good.finish();
      expect(worker.isOpen).toBe(true);
    },
    TEST_MS,
  );
});

test(
  'secrets are in no log of either side, and in no error',
  async () => {
    await open();
    const once = await token();
    const logFile = join(fleet.dir, 'worker.log');
    const env = { TUNEFLEET_LOG_LEVEL: 'debug' };
    const worker = fleet.startWorker('talker', { token: once.text, env, logFile });
    await ready(worker);
    const job = await fleet.submit({ steps: 3 });
    await fleet.untilStatus(job, 'succeeded');
    const bad = raw();
    const wrong = await token();
    const errors = [await bad.join(`${wrong.id}.${bad.secret}`), await bad.join('guessed-token-text')];
    bad.open({ shown: `${bad.id}.${bad.secret}` });
    errors.push(await bad.ended());
    const refusedWorker = fleet.startWorker('refused', { token: 'guessed-token-text', env, logFile });
    await refusedWorker.exited;
    await fleet.record.access.revokeWorker(await idOf('talker'), null);
    await worker.exited;
    const said = `${await readFile(logFile, 'utf8')}${logged}${JSON.stringify(errors)}`;
    expect(said).toContain('worker joined');
    expect(said).toContain('the control plane refused this worker');
    const own = await readFile(join(fleet.dir, 'workers', 'talker', 'credential'), 'utf8');
    for (const secret of [own, once.text.split('.')[1], wrong.text.split('.')[1], bad.secret, 'guessed-token-text', WORKER_TOKEN]) {
      expect(secret?.length).toBeGreaterThan(10);
      expect(said.includes(String(secret))).toBe(false);
    }
  },
  TEST_MS,
);

async function* one(bytes: Buffer): AsyncIterable<Uint8Array> {
  yield await Promise.resolve(bytes);
}

/** What users see of the scheduler, through the API of the control plane as a process: why jobs wait, teams and their quotas, refusals. */
import { randomUUID } from 'node:crypto';
import OpenAI, { RateLimitError } from 'openai';
import { evalJobSchema, fineTuningJobSchema, jobDetailSchema, teamSchema } from '@tunefleet/contracts';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { newId } from '@tunefleet/foundation';
import { until } from './fleet/testing/fleet-harness';
import { API_KEY, ControlPlaneProcess, TEAM } from './testing/control-plane-process';
import { RecordWorker, trainingRows } from './testing/record-worker';

const BASE = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const TEST_MS = 60_000;
const GIBIBYTE = 1024 ** 3;
let server: ControlPlaneProcess;
let client: TunefleetClient;
let openai: OpenAI;
let training: string;

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
  client = new TunefleetClient({ baseUrl: server.url, apiKey: API_KEY, maxRetries: 0 });
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: API_KEY, maxRetries: 0 });
  training = await server.upload(trainingRows(12));
}, 180_000);
afterAll(() => server.close(), 60_000);
afterEach(async () => {
  await client.teams.setQuota(TEAM, {});
  await client.teams.change(TEAM, { shares_workers: false });
  for (const { id, status } of (await client.jobs.list({ limit: 100 })).data) if (status === 'queued' || status === 'validating_files') await client.jobs.cancel(id);
});

type Extras = Parameters<typeof client.fineTuning.jobs.create>[0];
const create = async (changes: Partial<Extras> = {}): Promise<string> => (await client.fineTuning.jobs.create({ model: BASE, training_file: training, tuner: { kind: 'lora', r: 4 }, ...changes })).id;

async function untilWaiting(id: string, code: string) {
  await until(`${id} to wait because of ${code}`, async () => (await client.jobs.get(id)).waiting_code === code);
  return client.jobs.get(id);
}

test('a job asks for labels; while no worker on record has them it says so, the same everywhere, and a clone asks for them, too', async () => {
  const worker = new RecordWorker(server.store.fleet, server.blobs);
  const busy = await worker.take(await create());
  const id = await create({ worker_selector: { gpu: 'h100' } });
  const job = jobDetailSchema.parse(await untilWaiting(id, 'misconfigured'));
  expect(job).toMatchObject({ worker_selector: { gpu: 'h100' }, queue_position: 1, estimated_start: null, waiting_reason: expect.stringMatching(/^asks for a worker with gpu=h100, 1 worker is on record and has not/) });
  expect(fineTuningJobSchema.parse(await openai.fineTuning.jobs.retrieve(id)).x_meta).toMatchObject({ waiting_reason: job.waiting_reason, waiting_code: 'misconfigured', queue_position: 1, worker_selector: { gpu: 'h100' } });
  expect((await client.jobs.list({ status: 'queued' })).data[0]).toMatchObject({ id, waiting_reason: job.waiting_reason, queue_position: 1 });
  expect((await client.jobs.clone(id, {})).worker_selector).toEqual({ gpu: 'h100' });
  const evaluation = await client.evals.create({ model: BASE, file: training, metric: { type: 'exact_match' }, worker_selector: { zone: 'b' } });
  expect(evalJobSchema.parse(evaluation)).toMatchObject({ worker_selector: { zone: 'b' }, queue_position: null });
  await expect(create({ worker_selector: { 'no good': 'x' } })).rejects.toMatchObject({ status: 400, param: expect.stringContaining('worker_selector') });
  await worker.complete(busy, { result: {} });
  await worker.leave();
}, TEST_MS);

test('what no worker on record could hold is refused with the numbers; with none on record nothing is', async () => {
  const fleet = server.store.fleet;
  const sessionId = randomUUID();
  await fleet.helloWorker({
    ...{ id: 'wrk-small', bootId: 'b', name: 'small', version: '1', labels: { size: 'small' }, jobKinds: ['fine-tune'], modelsOnDisk: [], modelInMemory: null, slots: 1, sessionId, replicaId: 'r' },
    device: { kind: 'cpu', name: 'c', backend: 'b', backendVersion: '1', memoryBytesTotal: GIBIBYTE / 4, memoryBytesFree: GIBIBYTE / 4, bf16: false, threads: 1 },
  });
  await fleet.disconnectWorker('wrk-small', sessionId);
  const refused = await create({ worker_selector: { size: 'small' } });
  await until('the job to be refused', async () => (await client.jobs.get(refused)).status === 'failed');
  expect((await client.jobs.get(refused)).error).toMatchObject({
    class: 'resource',
    code: 'no_worker_large_enough',
    message: expect.stringMatching(/^the job needs about 0\.\d\d GiB of memory \(weights .*\), the largest worker with size=small, small, has 0\.25 GiB and gives a job 92 % of it: choose a smaller base model/),
  });
  const unknown = await create({ worker_selector: { size: 'none-yet' } });
  await untilWaiting(unknown, 'misconfigured');
}, TEST_MS);

test('weight and quotas are set and shown with what is used', async () => {
  expect(teamSchema.parse(await client.teams.get(TEAM))).toMatchObject({ name: TEAM, weight: 1, quotas: { running_jobs: null, gpu_hours_per_month: null, queued_jobs: null, storage_bytes: null } });
  const team = await client.teams.setQuota(TEAM, { weight: 2.5, running_jobs: 3, gpu_hours_per_month: 0.5 });
  expect(team).toMatchObject({ weight: 2.5, quotas: { running_jobs: 3, gpu_hours_per_month: 0.5, queued_jobs: null } });
  expect(team.usage.storage_bytes).toBeGreaterThan(0);
  expect((await client.teams.list()).data).toMatchObject([{ name: TEAM, weight: 2.5, quotas: team.quotas }]);
  await expect(client.teams.get('nobody')).rejects.toMatchObject({ status: 404 });
  await expect(client.teams.setQuota('nobody', {})).rejects.toMatchObject({ status: 404 });
  await expect(client.teams.setQuota(TEAM, { weight: 0 })).rejects.toMatchObject({ status: 400, param: 'weight' });
}, TEST_MS);

test('a team is changed field by field; null lifts a bound', async () => {
  await client.teams.change(TEAM, { weight: 2, running_jobs: 3, queued_jobs: 5 });
  expect(await client.teams.change(TEAM, { running_jobs: null, shares_workers: true })).toMatchObject({ weight: 2, shares_workers: true, quotas: { running_jobs: null, queued_jobs: 5 } });
  // Whether it shares is no quota.
  expect(await client.teams.setQuota(TEAM, {})).toMatchObject({ weight: 1, shares_workers: true, quotas: { queued_jobs: null } });
  expect(teamSchema.parse(await client.teams.change(TEAM, {}))).toMatchObject({ weight: 1, shares_workers: true, quotas: { queued_jobs: null } });
  await expect(client.teams.change('nobody', {})).rejects.toMatchObject({ status: 404 });
  await expect(client.teams.change(TEAM, { weight: 0 })).rejects.toMatchObject({ status: 400, param: 'weight' });
  await expect(client.teams.change(TEAM, { colour: 'red' } as object)).rejects.toMatchObject({ status: 400, param: 'colour' });
}, TEST_MS);

test('small jobs may share a worker from when their team allows it on, unless they decline; copies decline as well', async () => {
  const validated = async (id: string) => {
    await until(`${id} to be validated`, async () => (await client.jobs.get(id)).status !== 'validating_files');
    return client.jobs.get(id);
  };
  const mayShare = async (changes: Partial<Extras> = {}) => (await validated(await create(changes))).may_share_worker;
  const before = await create({ share: true });
  expect((await validated(before)).may_share_worker).toBe(false);
  await until('the reason to be told', async () => (await client.jobs.events(before)).data.some(({ message }) => message.includes('your team has not switched sharing on')));
  await client.teams.change(TEAM, { shares_workers: true });
  const declined = await create({ share: false });
  expect([await mayShare(), await mayShare({ share: true }), (await validated(declined)).may_share_worker]).toEqual([true, true, false]);
  expect((await validated(before)).may_share_worker).toBe(false);
  const clone = await client.jobs.clone(declined);
  expect([clone.may_share_worker, (await validated(clone.id)).may_share_worker]).toEqual([null, false]);
  const asking = await client.jobs.clone(declined, { share: null });
  expect(await validated(asking.id)).toMatchObject({ may_share_worker: true, shares_worker_with: { jobs: [], other_teams_jobs: 0 } });
  expect(fineTuningJobSchema.parse(await openai.fineTuning.jobs.retrieve(asking.id)).x_meta.may_share_worker).toBe(true);

  const unable = await create({ share: true, tuner: { kind: 'prompt-tuning' } });
  expect((await validated(unable)).may_share_worker).toBe(false);
  await until('the reason to be told', async () => (await client.jobs.events(unable)).data.some(({ message }) => message.includes('the job gets a worker to itself: as it is set up, Prompt tuning cannot share its passes')));
  await expect(create({ share: 'no' as unknown as boolean })).rejects.toMatchObject({ status: 400, param: 'share' });
}, TEST_MS);

test('jobs on one worker: whose they are is told of one\'s own, of others how many', async () => {
  const { records, fleet } = server.store;
  await client.teams.change(TEAM, { shares_workers: true });
  const [own, mate] = [await create(), await create()];
  for (const id of [own, mate]) await untilWaiting(id, 'no_fitting_worker');
  const others = await records.ensureTeam('others');
  const { job } = await records.createJob({ id: newId('fineTuningJob'), teamId: others.id, kind: 'fine-tune', spec: {}, baseModel: BASE, metadata: null, priority: 0, queue: 'nobody' });
  const { shareKey } = (await records.getJobForIntake(own)) ?? {};
  await records.admitJob(job.id, { spec: {}, workerSpec: {}, totalSteps: 1, memoryBytesEstimate: 1000, sharing: { key: shareKey ?? '', memoryBytes: 1 }, trainingDatasetId: null, validationDatasetId: null });

  const sessionId = randomUUID();
  await fleet.helloWorker({
    ...{ id: 'wrk-shared', bootId: 'b', name: 'shared', version: '1', labels: {}, jobKinds: ['fine-tune'], modelsOnDisk: [], modelInMemory: null, slots: 3, sessionId, replicaId: 'r' },
    device: { kind: 'cpu', name: 'c', backend: 'b', backendVersion: '1', memoryBytesTotal: 64 * GIBIBYTE, memoryBytesFree: 64 * GIBIBYTE, bf16: false, threads: 1 },
  });
  await fleet.setCredit('wrk-shared', sessionId, { jobs: 3, modelsOnDisk: [], modelInMemory: null });
  await fleet.wake('schedule');
  await until('all three to be placed', async () => (await fleet.listLiveAttempts('wrk-shared')).length === 3);
  const detail = jobDetailSchema.parse(await client.jobs.get(own));
  const company = { jobs: [mate], other_teams_jobs: 1 };
  expect(detail).toMatchObject({ status: 'running', shares_worker_with: company, attempts: [{ worker_name: 'shared', shared_worker_with: company, gpu_seconds: expect.any(Number) }] });
  expect(JSON.stringify(detail)).not.toContain(job.id);
  for (const { jobId, id: attemptId, epoch } of await fleet.listLiveAttempts('wrk-shared')) {
    if (jobId !== own) await fleet.endAttempt({ jobId, attemptId, epoch }, { outcome: 'failed', failure: null, after: { then: 'fail' } });
  }
  expect(await client.jobs.get(own)).toMatchObject({ shares_worker_with: { jobs: [], other_teams_jobs: 0 }, attempts: [{ shared_worker_with: company }] });
  await client.jobs.cancel(own);
  for (const { jobId, id: attemptId, epoch } of await fleet.listLiveAttempts('wrk-shared')) await fleet.closeAttempt({ jobId, attemptId, epoch }, 'stopped');
  await fleet.disconnectWorker('wrk-shared', sessionId);
}, TEST_MS);

test('beyond the quota of running jobs a job waits and says so; beyond that of waiting ones it is refused, and so is a file beyond that of storage', async () => {
  await client.teams.setQuota(TEAM, { running_jobs: 0, queued_jobs: 1, storage_bytes: 100 });
  const id = await create();
  expect(await untilWaiting(id, 'quota')).toMatchObject({ waiting_reason: `team ${TEAM} may run 0 jobs at once and does: waiting for one to end, or for a higher quota`, estimated_start: null });
  const again = openai.fineTuning.jobs.create({ model: BASE, training_file: training });
  await expect(again).rejects.toBeInstanceOf(RateLimitError);
  await expect(again).rejects.toMatchObject({ code: 'queue_quota_exceeded', message: expect.stringContaining('1 job of your team waits, and its quota is 1') });
  const upload = openai.files.create({ file: await OpenAI.toFile(Buffer.from(trainingRows(12)), 'more.jsonl'), purpose: 'fine-tune' });
  await expect(upload).rejects.toMatchObject({ status: 429, code: 'storage_quota_exceeded', message: expect.stringMatching(/its quota is 100: delete files/) });
}, TEST_MS);

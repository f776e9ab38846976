/**
 * What operators see of the control plane, which runs as a process: metrics, repairs of a record that was damaged by hand, retention.
 */
import { TunefleetClient } from '@tunefleet/client-sdk';
import { RETENTION_KINDS } from '@tunefleet/contracts';
import { newId } from '@tunefleet/foundation';
import { until } from './fleet/testing/fleet-harness';
import { keyOf } from './loops/attempt-key';
import { API_KEY, ControlPlaneProcess } from './testing/control-plane-process';

let server: ControlPlaneProcess;
beforeAll(async () => {
  server = await ControlPlaneProcess.open();
}, 180_000);
afterAll(() => server.close(), 60_000);

async function scrape(): Promise<string> {
  const response = await server.fetch('/metrics');
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
  return response.text();
}

test('metrics are behind the API key', async () => {
  expect((await server.fetch('/metrics', { headers: { authorization: '' } })).status).toBe(401);
});

test('a lost worker with its job: the repairs show as metrics and in the log, once', async () => {
  const { fleet, records } = server.store;
  const team = await records.ensureTeam('metrics');
  const id = newId('fineTuningJob');
  await records.createJob({ id, teamId: team.id, kind: 'fine-tune', spec: {}, baseModel: 'base@r1', metadata: null, priority: 0, workerSelector: { only: 'this test places it' }, queue: 'tune' });
  await records.admitJob(id, { spec: {}, workerSpec: {}, totalSteps: 10, memoryBytesEstimate: 1000, trainingDatasetId: null, validationDatasetId: null });
  const hello = { id: 'wrk-lost', bootId: 'boot', name: 'lost', version: '1', labels: {}, jobKinds: ['fine-tune'], modelsOnDisk: [], modelInMemory: null, slots: 1, sessionId: 's', replicaId: 'gone' };
  await fleet.helloWorker({ ...hello, device: { kind: 'cpu', name: 'cpu', backend: 'test', backendVersion: '1', memoryBytesTotal: 4000, memoryBytesFree: 4000, bf16: false, threads: 1 } });
  await fleet.setCredit('wrk-lost', 's', { jobs: 1, modelsOnDisk: [], modelInMemory: null });
  const attempt = await fleet.place({ jobId: id, jobEpoch: 0, workerId: 'wrk-lost', workerBootId: 'boot', workerSessionId: 's', workerSlots: 1, resumeCheckpointId: null, besideJobIds: [] }, 1);
  if (attempt === null) throw new Error('the job was not placed');
  // Acknowledged, or the assignment could be taken back before the lease counts.
  expect(await fleet.acknowledge(keyOf(attempt), 1)).toBe('applied');

  await until('the repair to be counted', async () => (await scrape()).includes('tunefleet_repairs_total{kind="lease_expired"} 1\n'));
  const text = await scrape();
  expect(text).toMatch(/tunefleet_jobs\{status="queued"\} \d/);
  expect(text).toContain('tunefleet_repairs_total{kind="stop_overdue"} 0\n');
  expect(text).toMatch(/tunefleet_loop_seconds_count\{loop="scheduler"\} [1-9]/);
  expect(text).toContain('tunefleet_record_up 1\n');
  const repairs = (await server.logLines()).filter(({ msg, repair }) => msg === 'repaired' && repair === 'lease_expired');
  expect(repairs).toMatchObject([{ level: 30, jobId: id, attemptId: attempt.id, workerId: 'wrk-lost', total: 1 }]);
}, 60_000);

test('retention: a dry run by default, of every kind; then what was asked for goes; rules that are not safe are refused', async () => {
  const client = new TunefleetClient({ baseUrl: server.url, apiKey: API_KEY });
  const file = await server.upload('{}', 'fine-tune');
  await client.files.delete(file);
  const dry = await client.retention.run();
  expect(dry).toMatchObject({ applied: false, complete: true });
  expect(dry.data.map(({ kind, rows }) => [kind, rows])).toEqual(RETENTION_KINDS.map((kind) => [kind, 0]));

  // Made by the job of the test before, and handed on at once.
  const rules = { outbox: { older_than_seconds: 0 } };
  expect(await client.retention.run({ rules })).toMatchObject({ applied: false, data: [{ kind: 'outbox', rows: 1 }] });
  expect(await client.retention.run({ rules, apply: true })).toMatchObject({ applied: true, complete: true, data: [{ kind: 'outbox', rows: 1 }] });
  expect(await client.retention.run({ rules })).toMatchObject({ data: [{ rows: 0 }] });

  await expect(client.retention.run({ rules: { artifacts: { older_than_seconds: 60 } } })).rejects.toMatchObject({ status: 400, param: 'rules.artifacts', message: expect.stringContaining('at least 1 h') as string });
  expect((await server.post('/api/v1/retention', { rules: { jobs: { older_than_seconds: 1 } } })).status).toBe(400);
});

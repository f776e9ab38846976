/** The control plane as a process, its record damaged by hand: what its reconciler mends is counted by kind and logged with what it was mended on. */
import { newId } from '@tunefleet/foundation';
import { until } from '../fleet/testing/fleet-harness';
import { ControlPlaneProcess } from '../testing/control-plane-process';

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
  const hello = { id: 'wrk-lost', bootId: 'boot', name: 'lost', version: '1', labels: {}, jobKinds: ['fine-tune'], modelsOnDisk: [], modelInMemory: null, sessionId: 's', replicaId: 'gone' };
  await fleet.helloWorker({ ...hello, device: { kind: 'cpu', name: 'cpu', backend: 'test', backendVersion: '1', memoryBytesTotal: 4000, memoryBytesFree: 4000, bf16: false, threads: 1 } });
  await fleet.setCredit('wrk-lost', 's', { jobs: 1, modelsOnDisk: [], modelInMemory: null });
  const attempt = await fleet.place({ jobId: id, jobEpoch: 0, workerId: 'wrk-lost', workerBootId: 'boot', workerSessionId: 's', resumeCheckpointId: null }, 1);
  expect(attempt).toMatchObject({ epoch: 1 });

  await until('the repair to be counted', async () => (await scrape()).includes('tunefleet_repairs_total{kind="lease_expired"} 1\n'));
  const text = await scrape();
  expect(text).toMatch(/tunefleet_jobs\{status="queued"\} \d/);
  expect(text).toContain('tunefleet_repairs_total{kind="stop_overdue"} 0\n');
  expect(text).toMatch(/tunefleet_loop_seconds_count\{loop="scheduler"\} [1-9]/);
  expect(text).toContain('tunefleet_record_up 1\n');
  const repairs = (await server.logLines()).filter(({ msg, repair }) => msg === 'repaired' && repair === 'lease_expired');
  expect(repairs).toMatchObject([{ level: 30, jobId: id, attemptId: attempt?.id, workerId: 'wrk-lost', total: 1 }]);
}, 60_000);

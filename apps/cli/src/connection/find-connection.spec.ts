import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { explainUnreachable, findConnection, findFleet } from './find-connection';

let dataDir: string;
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'tunefleet-connection-'));
});
afterEach(() => rm(dataDir, { recursive: true, force: true }));

const question = (flags: object, environment: Record<string, string> = {}) => ({ flags, environment, workingDir: dataDir });

test('flags win over the environment, the environment over the local service', async () => {
  await writeFile(join(dataDir, 'server.json'), JSON.stringify({ url: 'http://127.0.0.1:1' }));
  await writeFile(join(dataDir, 'secrets.json'), JSON.stringify({ apiKey: 'local-key' }));
  const environment = { TUNEFLEET_URL: 'http://env:1', TUNEFLEET_API_KEY: 'env-key' };
  expect(await findConnection(question({ url: 'http://flag:1', key: 'flag-key', dataDir }, environment))).toEqual({ url: 'http://flag:1', apiKey: 'flag-key', source: 'flag' });
  expect(await findConnection(question({ dataDir }, environment))).toEqual({ url: 'http://env:1', apiKey: 'env-key', source: 'environment' });
  expect(await findConnection(question({ dataDir }, { TUNEFLEET_URL: '' }))).toEqual({ url: 'http://127.0.0.1:1', apiKey: 'local-key', source: 'local' });
});

test('the local key is not sent to a server named by address', async () => {
  await writeFile(join(dataDir, 'secrets.json'), JSON.stringify({ apiKey: 'local-key' }));
  await expect(findConnection(question({ url: 'http://elsewhere:1', dataDir }))).rejects.toThrow('there is no API key for http://elsewhere:1: pass --key or set TUNEFLEET_API_KEY');
});

test('without a service the message says how to start one', async () => {
  await expect(findConnection(question({ dataDir }))).rejects.toThrow(`no service runs from ${dataDir}: start it with "npm start"`);
});

test('a broken file of the service is named', async () => {
  await writeFile(join(dataDir, 'server.json'), '{');
  await expect(findConnection(question({ dataDir }))).rejects.toThrow('server.json cannot be read');
});

test('no answer is explained, another error is left alone', () => {
  const connection = { url: 'http://127.0.0.1:1', apiKey: 'k', source: 'local' } as const;
  expect(explainUnreachable(new TunefleetError('unavailable', 'connect ECONNREFUSED'), connection)).toMatchObject({
    message: expect.stringMatching(/no answer from http:\/\/127\.0\.0\.1:1 .*start it with "npm start"/) as unknown,
  });
  const other = new TunefleetError('not_found', 'no such job');
  expect(explainUnreachable(other, connection)).toBe(other);
});

test('a worker dials the control plane that is named, with a token, or the local one with its own', async () => {
  await writeFile(join(dataDir, 'server.json'), JSON.stringify({ url: 'http://127.0.0.1:1', grpcAddress: '127.0.0.1:2' }));
  await writeFile(join(dataDir, 'secrets.json'), JSON.stringify({ apiKey: 'local-key', workerToken: 'local-token' }));
  expect(await findFleet(question({ dataDir }))).toEqual({ controlPlane: '127.0.0.1:2', workerToken: 'local-token' });
  expect(await findFleet(question({ dataDir, controlPlane: 'far:1' }, { TUNEFLEET_WORKER_TOKEN: 'far-token' }))).toEqual({ controlPlane: 'far:1', workerToken: 'far-token' });
  // The local token is not shown to a stranger; a worker that has joined there needs none.
  expect(await findFleet(question({ dataDir }, { TUNEFLEET_CONTROL_PLANE: 'far:1' }))).toEqual({ controlPlane: 'far:1', workerToken: undefined });
});

test('a worker without a control plane says how to name one', async () => {
  await expect(findFleet(question({ dataDir }))).rejects.toThrow(/name its control plane with --control-plane/);
});

import { parseWorkerConfig } from './config';

const token = { TUNEFLEET_WORKER_TOKEN: 'long-enough-token' };

test('workers of one data folder have folders of their own and share the model cache', () => {
  const one = parseWorkerConfig({ ...token, TUNEFLEET_DATA_DIR: '/data', TUNEFLEET_WORKER_NAME: 'one' });
  const two = parseWorkerConfig({ ...token, TUNEFLEET_DATA_DIR: '/data', TUNEFLEET_WORKER_NAME: 'two' });
  expect([one.workerDir, two.workerDir]).toEqual(['/data/workers/one', '/data/workers/two']);
  expect([one.cacheDir, two.cacheDir]).toEqual(['/data/cache', '/data/cache']);
});

test('the scheme says whether the connection is encrypted', () => {
  const parse = (address: string) => parseWorkerConfig({ ...token, TUNEFLEET_CONTROL_PLANE: address });
  expect(parse('host:8081')).toMatchObject({ controlPlane: 'host:8081', tls: null });
  expect(parse('grpcs://host:443')).toMatchObject({ controlPlane: 'host:443', tls: { ca: null, own: null, serverName: null } });
});

test('TLS settings come together, and only with TLS', () => {
  const tls = { TUNEFLEET_TLS_CA: 'ca.pem', TUNEFLEET_TLS_CERT: 'cert.pem', TUNEFLEET_TLS_KEY: 'key.pem', TUNEFLEET_TLS_SERVER_NAME: 'control' };
  expect(parseWorkerConfig({ ...tls, TUNEFLEET_CONTROL_PLANE: 'grpcs://host:443' }).tls).toEqual({ ca: 'ca.pem', own: { cert: 'cert.pem', key: 'key.pem' }, serverName: 'control' });
  expect(() => parseWorkerConfig({ ...tls, TUNEFLEET_TLS_KEY: '', TUNEFLEET_CONTROL_PLANE: 'grpcs://host:443' })).toThrow(/TUNEFLEET_TLS_CERT: needs TUNEFLEET_TLS_KEY/);
  expect(() => parseWorkerConfig(tls)).toThrow(/TUNEFLEET_TLS_CA: has no effect unless TUNEFLEET_CONTROL_PLANE begins with grpcs/);
});

test('a worker that has joined needs no token', () => {
  expect([parseWorkerConfig({}).joinToken, parseWorkerConfig(token).joinToken]).toEqual([null, 'long-enough-token']);
});

test('labels and the time to stop', () => {
  const parse = (labels: string) => parseWorkerConfig({ ...token, TUNEFLEET_WORKER_LABELS: labels }).labels;
  expect(parse('')).toEqual({});
  expect(parse(' zone=eu-1, gpu=t4 ,empty=')).toEqual({ zone: 'eu-1', gpu: 't4', empty: '' });
  for (const wrong of ['zone', '=a', 'a b=c', 'a=1,a=2', Array.from({ length: 33 }, (_, i) => `l${i}=x`).join(',')]) expect(() => parse(wrong)).toThrow(/TUNEFLEET_WORKER_LABELS/);
  expect(parseWorkerConfig(token).stopMs).toBe(30_000);
  expect(parseWorkerConfig({ ...token, TUNEFLEET_WORKER_STOP_SECONDS: '120' }).stopMs).toBe(120_000);
});

test('how many jobs at once', () => {
  const slots = (text?: string) => parseWorkerConfig({ ...token, TUNEFLEET_WORKER_SLOTS: text }).slots;
  expect([slots(), slots('1'), slots('64')]).toEqual([8, 1, 64]);
  for (const wrong of ['0', '65', '2.5', 'many']) expect(() => slots(wrong)).toThrow(/TUNEFLEET_WORKER_SLOTS/);
});

test('how long an engine may be silent', () => {
  expect(parseWorkerConfig({}).engineSilenceMs).toBe(1_800_000);
  expect(parseWorkerConfig({ TUNEFLEET_ENGINE_SILENCE_SECONDS: '60' }).engineSilenceMs).toBe(60_000);
  expect(() => parseWorkerConfig({ TUNEFLEET_ENGINE_SILENCE_SECONDS: '0' })).toThrow(/TUNEFLEET_ENGINE_SILENCE_SECONDS/);
});

test('every variable at fault is named, none of their values is', () => {
  const parse = (): unknown => parseWorkerConfig({ TUNEFLEET_WORKER_TOKEN: 'short', TUNEFLEET_CONTROL_PLANE: 'nowhere', TUNEFLEET_WORKER_NAME: '../x' });
  expect(parse).toThrow(/TUNEFLEET_CONTROL_PLANE.*TUNEFLEET_WORKER_TOKEN.*TUNEFLEET_WORKER_NAME/);
  expect(parse).not.toThrow(/short|nowhere|\.\.\/x/);
});

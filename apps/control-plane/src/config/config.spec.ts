import { isAbsolute } from 'node:path';
import { defaultFleetSettings, leaseTimes } from '../fleet/settings';
import { defaultReconcilerSettings, repairTimes } from '../loops/reconciler';
import { parseConfig } from './config';

const REQUIRED = { DATABASE_URL: 'postgres://localhost/x', TUNEFLEET_API_KEY: 'a-long-key', TUNEFLEET_WORKER_TOKEN: 'a-long-token' };

test('empty variables are absent ones; the rest has defaults', () => {
  const config = parseConfig({ ...REQUIRED, REDIS_URL: '' });
  expect(config).toMatchObject({ redisUrl: undefined, host: '127.0.0.1', team: 'default', httpPort: 8080, logLevel: 'info', maxFileBytes: 512 * 1024 * 1024 });
  expect(isAbsolute(config.dataDir)).toBe(true);
  expect(isAbsolute(config.models.cacheDirectory)).toBe(true);
});

test('a lease of another length brings the times that go with it', () => {
  expect(parseConfig(REQUIRED).leaseMs).toBe(30_000);
  expect(leaseTimes(30_000)).toEqual(pick(defaultFleetSettings, ['beatIntervalMs', 'silenceMs', 'leaseMs']));
  expect(repairTimes(30_000)).toEqual(pick(defaultReconcilerSettings, ['comeBackMs', 'unacknowledgedMs', 'suspectMs', 'offlineMs']));
  const { leaseMs } = parseConfig({ ...REQUIRED, TUNEFLEET_LEASE_SECONDS: '9' });
  expect({ ...leaseTimes(leaseMs), ...repairTimes(leaseMs) }).toEqual({ leaseMs: 9_000, beatIntervalMs: 1_500, silenceMs: 4_500, comeBackMs: 4_500, unacknowledgedMs: 3_000, suspectMs: 6_000, offlineMs: 9_000 });
});

test('workers: the shared token can be left out once it is off; gRPC has an address and files of its own', () => {
  expect(parseConfig(REQUIRED)).toMatchObject({ sharedToken: 'a-long-token', grpcHost: '127.0.0.1', grpcTls: null, grpcPlaintext: false });
  expect(parseConfig({ ...REQUIRED, TUNEFLEET_SHARED_TOKEN: 'off' }).sharedToken).toBeNull();
  expect(parseConfig({ ...REQUIRED, TUNEFLEET_SHARED_TOKEN: 'off', TUNEFLEET_WORKER_TOKEN: '' }).sharedToken).toBeNull();
  expect(parseConfig({ ...REQUIRED, TUNEFLEET_HOST: '10.0.0.1', TUNEFLEET_GRPC_HOST: '::1', TUNEFLEET_GRPC_PLAINTEXT: 'on' })).toMatchObject({ host: '10.0.0.1', grpcHost: '::1', grpcPlaintext: true });
  expect(parseConfig({ ...REQUIRED, TUNEFLEET_GRPC_TLS_CERT: 'c', TUNEFLEET_GRPC_TLS_KEY: 'k' }).grpcTls).toEqual({ cert: 'c', key: 'k', clientCa: null });
});

test('what is removed once a day: messages by default, more or nothing on request', () => {
  const retention = (text?: string) => parseConfig({ ...REQUIRED, TUNEFLEET_RETENTION: text }).retention;
  expect(retention()).toEqual([{ kind: 'outbox', olderThanMs: 3_600_000, keep: 0 }]);
  expect(retention('outbox=2h,checkpoints=30d:2').map(({ kind, keep }) => [kind, keep])).toEqual([['outbox', 0], ['checkpoints', 2]]);
  expect(retention('off')).toEqual([]);
});

test.each([
  [{ TUNEFLEET_RETENTION: 'jobs=1d' }, /TUNEFLEET_RETENTION: "jobs" is nothing that is kept/],
  [{ TUNEFLEET_SHARED_TOKEN: 'no' }, /TUNEFLEET_SHARED_TOKEN/],
  [{ TUNEFLEET_GRPC_TLS_CERT: 'c' }, /TUNEFLEET_GRPC_TLS_CERT: needs TUNEFLEET_GRPC_TLS_KEY/],
  [{ TUNEFLEET_GRPC_TLS_CLIENT_CA: 'c' }, /TUNEFLEET_GRPC_TLS_CLIENT_CA: needs/],
  [{ DATABASE_URL: 'mysql://x' }, /DATABASE_URL: /],
  [{ TUNEFLEET_API_KEY: 'short' }, /TUNEFLEET_API_KEY: at least 8 characters/],
  [{ TUNEFLEET_HTTP_PORT: '70000' }, /TUNEFLEET_HTTP_PORT: /],
  [{ TUNEFLEET_LEASE_SECONDS: '5' }, /TUNEFLEET_LEASE_SECONDS: /],
  [{ TUNEFLEET_TEAM: 'A B' }, /TUNEFLEET_TEAM: lower-case/],
  [{ REDIS_URL: 'http://x' }, /REDIS_URL: a redis/],
  [{ TUNEFLEET_WORKER_TOKEN: undefined }, /TUNEFLEET_WORKER_TOKEN is not set/],
  [{ TUNEFLEET_MODEL_SOURCES: 'moon' }, /TUNEFLEET_MODEL_SOURCES/],
])('%o is refused by name, without its value', (wrong, message) => {
  const parse = () => parseConfig({ ...REQUIRED, ...wrong });
  expect(parse).toThrow(expect.objectContaining({ code: 'invalid_input', message: expect.stringMatching(message) }));
  expect(parse).not.toThrow(/a-long-|short/);
});

function pick<T, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>;
}

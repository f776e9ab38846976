import { isAbsolute } from 'node:path';
import { parseConfig } from './config';

const REQUIRED = { DATABASE_URL: 'postgres://localhost/x', TUNEFLEET_API_KEY: 'a-long-key', TUNEFLEET_WORKER_TOKEN: 'a-long-token' };

test('empty variables are absent ones; the rest has defaults', () => {
  const config = parseConfig({ ...REQUIRED, REDIS_URL: '' });
  expect(config).toMatchObject({ redisUrl: undefined, host: '127.0.0.1', team: 'default', httpPort: 8080, logLevel: 'info', maxFileBytes: 512 * 1024 * 1024 });
  expect(isAbsolute(config.dataDir)).toBe(true);
  expect(isAbsolute(config.models.cacheDirectory)).toBe(true);
});

test.each([
  [{ DATABASE_URL: 'mysql://x' }, /DATABASE_URL: /],
  [{ TUNEFLEET_API_KEY: 'short' }, /TUNEFLEET_API_KEY: at least 8 characters/],
  [{ TUNEFLEET_HTTP_PORT: '70000' }, /TUNEFLEET_HTTP_PORT: /],
  [{ TUNEFLEET_TEAM: 'A B' }, /TUNEFLEET_TEAM: lower-case/],
  [{ REDIS_URL: 'http://x' }, /REDIS_URL: a redis/],
  [{ TUNEFLEET_WORKER_TOKEN: undefined }, /TUNEFLEET_WORKER_TOKEN is not set/],
  [{ TUNEFLEET_MODEL_SOURCES: 'moon' }, /TUNEFLEET_MODEL_SOURCES/],
])('%o is refused by name, without its value', (wrong, message) => {
  const parse = () => parseConfig({ ...REQUIRED, ...wrong });
  expect(parse).toThrow(expect.objectContaining({ code: 'invalid_input', message: expect.stringMatching(message) }));
  expect(parse).not.toThrow(/a-long-|short/);
});

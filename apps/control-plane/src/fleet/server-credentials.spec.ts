import { isLoopback, serverCredentials } from './server-credentials';

test.each([
  ['127.0.0.1', true],
  ['127.8.9.1', true],
  ['localhost', true],
  ['::1', true],
  ['0.0.0.0', false],
  ['::', false],
  ['10.0.0.1', false],
  ['127.0.0.1.example', false],
  ['worker.example', false],
])('%s is this machine alone: %p', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});

test('plain text is for this machine, or has to be asked for; the message says how', () => {
  expect(() => serverCredentials({ host: '127.0.0.1' })).not.toThrow();
  expect(() => serverCredentials({ host: '0.0.0.0' })).toThrow(/0\.0\.0\.0 in plain text.*TUNEFLEET_GRPC_TLS_CERT.*TUNEFLEET_GRPC_PLAINTEXT=on/);
  expect(() => serverCredentials({ host: '0.0.0.0', plaintextAllowed: true })).not.toThrow();
});

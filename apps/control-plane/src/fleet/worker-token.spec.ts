import { Metadata } from '@grpc/grpc-js';
import { requireWorkerToken } from './worker-token';

function header(value?: string): Metadata {
  const metadata = new Metadata();
  if (value !== undefined) metadata.set('authorization', value);
  return metadata;
}

test('the right token passes', () => {
  expect(requireWorkerToken(header('Bearer right-token'), 'right-token')).toBeUndefined();
});

test.each([undefined, '', 'Bearer ', 'Bearer right-token2', 'Bearer right-toke', 'right-token', 'Basic right-token'])('%p is refused without naming the token', (value) => {
  const attempt = (): void => requireWorkerToken(header(value), 'right-token');
  expect(attempt).toThrow(expect.objectContaining({ code: 'unauthenticated' }));
  expect(attempt).not.toThrow(/right-token/);
});

import { requestOf, seconds } from './worker-tokens';

test('times of tokens', () => {
  expect([seconds('45s'), seconds('30m'), seconds('12h'), seconds('7d')]).toEqual([45, 1_800, 43_200, 604_800]);
  for (const wrong of ['', '0d', '7', 'd', '-1h', '1.5h', '1w']) expect(() => seconds(wrong)).toThrow(/30m, 12h or 7d/);
});

test('what is not given is left to the service, "any" and "never" are said', () => {
  expect(requestOf({})).toEqual({});
  expect(requestOf({ uses: 'any', expires: 'never', name: 'gpu-*', label: { zone: 'b' }, note: 'rack 4' })).toEqual({ uses: 'any', expires_in_seconds: 'never', name: 'gpu-*', labels: { zone: 'b' }, note: 'rack 4' });
});

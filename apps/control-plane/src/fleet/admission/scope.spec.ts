import { anyWorker, fits, outsideScope } from './scope';

test.each([
  ['gpu-1', 'gpu-1', true],
  ['gpu-12', 'gpu-1', false],
  ['gpu-1', 'gpu-*', true],
  ['gpu-', 'gpu-*', true],
  ['cpu-1', 'gpu-*', false],
  ['eu-gpu-1', '*-gpu-*', true],
  ['eu-gpu', '*-gpu-*', false],
  ['anything', '*', true],
  ['', '*', true],
  ['', '', true],
  ['a', '', false],
  ['aba', 'ab*ba', false],
  ['abba', 'ab*ba', true],
  ['a.b', 'a?b', false],
])('%p fits %p: %p', (text, pattern, expected) => {
  expect(fits(text, pattern)).toBe(expected);
});

test('a pattern of many stars is as quick as any other', () => {
  const startedAt = performance.now();
  expect(fits('a'.repeat(10_000), `${'a*'.repeat(40)}b`)).toBe(false);
  expect(performance.now() - startedAt).toBeLessThan(1_000);
});

test('names and labels outside the scope are named', () => {
  const scope = { namePattern: 'gpu-*', labels: { zone: 'b', gpu: '*' } };
  expect(outsideScope({ name: 'gpu-1', labels: { zone: 'b', gpu: 'a100' } }, scope)).toBeNull();
  expect(outsideScope({ name: 'gpu-1', labels: {} }, scope)).toBeNull();
  expect(outsideScope({ name: 'x', labels: {} }, scope)).toBe('the name x does not fit gpu-*');
  expect(outsideScope({ name: 'gpu-1', labels: { zone: 'a' } }, scope)).toBe('the label zone=a does not fit zone=b');
  expect(outsideScope({ name: 'gpu-1', labels: { team: 'x' } }, scope)).toBe('the label team is not among those allowed (zone, gpu)');
  expect(outsideScope({ name: 'gpu-1', labels: { constructor: 'x' } }, scope)).toMatch(/not among those allowed/);
  expect(outsideScope({ name: 'x', labels: { zone: 'a' } }, { namePattern: null, labels: {} })).toMatch(/\(none\)/);
  expect(outsideScope({ name: 'x', labels: { zone: 'a' } }, anyWorker)).toBeNull();
});

import { backoffDelayMs } from './backoff';
import { newId } from './ids';
import { canonicalJson, sha256Hex } from './json';

test('ids made in one millisecond sort in the order they were made and never repeat', () => {
  const ids = Array.from({ length: 5000 }, () => newId('event', 1_700_000_000_000));
  expect(new Set(ids).size).toBe(ids.length);
  expect([...ids].sort()).toEqual(ids);
});

test('ids keep their order when the wall clock steps back', () => {
  const later = newId('event', 1_900_000_000_000);
  const earlier = newId('event', 1_800_000_000_000);
  expect(earlier > later).toBe(true);
});

test('canonical JSON does not depend on key order', () => {
  expect(canonicalJson({ b: [{ d: 1, c: 2 }], a: null })).toBe('{"a":null,"b":[{"c":2,"d":1}]}');
  expect(canonicalJson({ a: 1, b: 2 })).toBe(canonicalJson({ b: 2, a: 1 }));
  expect(sha256Hex('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
});

test('backoff grows to its bound and is jittered over the whole range', () => {
  const policy = { firstMs: 100, factor: 2, maxMs: 1000 };
  expect([1, 2, 3, 4, 5, 60].map((n) => backoffDelayMs(policy, n, () => 1))).toEqual([100, 200, 400, 800, 1000, 1000]);
  expect(backoffDelayMs(policy, 3, () => 0)).toBe(0);
});

import { Recent } from './recent';

test('keeps what was used last, up to a weight', () => {
  const recent = new Recent<string>(3);
  for (const key of ['a', 'b', 'c']) recent.set(key, key);
  expect(recent.get('a')).toBe('a');
  recent.set('d', 'd');
  expect(['a', 'b', 'c', 'd'].map((key) => recent.get(key))).toEqual(['a', undefined, 'c', 'd']);
  recent.set('heavy', 'heavy', 2);
  expect(['a', 'c', 'd', 'heavy'].map((key) => recent.get(key))).toEqual([undefined, undefined, 'd', 'heavy']);
  recent.set('heavy', 'lighter', 1);
  recent.set('e', 'e');
  expect(['d', 'heavy', 'e'].map((key) => recent.get(key))).toEqual(['d', 'lighter', 'e']);
});

test('what is heavier than all together is not kept', () => {
  const recent = new Recent<string>(3);
  recent.set('a', 'a');
  recent.set('b', 'b', 4);
  expect([recent.get('a'), recent.get('b')]).toEqual(['a', undefined]);
});

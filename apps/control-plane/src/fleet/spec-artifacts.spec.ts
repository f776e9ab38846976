import { collectArtifacts } from './spec-artifacts';

const artifact = (name: string, digit: string) => ({ name, sha256: digit.repeat(64), bytes: 1 });

test('finds artifacts wherever they stand, once per hash', () => {
  const spec = {
    base: { id: 'm', revision: 'r' },
    file: artifact('train.jsonl', 'a'),
    candidates: [{ model: 'x', adapter: [artifact('w.bin', 'b'), artifact('c.json', 'c')] }, { model: 'y', adapter: [artifact('w2.bin', 'b')] }],
  };
  expect(collectArtifacts(spec).map((found) => found.sha256[0])).toEqual(['a', 'b', 'c']);
});

test('finds none where there is none', () => {
  expect(collectArtifacts({ a: null, b: [1, 'two', { sha256: 'short' }] })).toEqual([]);
});

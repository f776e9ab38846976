import { countOomKills } from './oom-kills';

test('the count is read where the kernel gives it', () => {
  expect(countOomKills(() => 'pgfault 7\noom_kill 12\nnuma_hit 3\n')).toBe(12);
});

test.each<[string, () => string]>([
  ['older kernels', () => 'pgfault 7\n'],
  ['other systems', () => {
    throw new Error('ENOENT');
  }],
])('it is not known on %s', (_where, read) => expect(countOomKills(read)).toBeNull());

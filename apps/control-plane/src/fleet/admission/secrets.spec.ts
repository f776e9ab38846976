import { hashSecret, isSameText, isSecret, newSecret, parseShown } from './secrets';

test('a secret is 32 random bytes, and only it fits its hash', () => {
  const [one, two] = [newSecret(), newSecret()];
  expect(Buffer.from(one, 'base64url')).toHaveLength(32);
  expect(one).not.toBe(two);
  expect([isSecret(one, hashSecret(one)), isSecret(two, hashSecret(one)), isSecret('', hashSecret(one))]).toEqual([true, false, false]);
});

test('without a hash, or with one that is none, nothing fits', () => {
  for (const hash of [null, '', '0'.repeat(64), 'short']) expect(isSecret('', hash)).toBe(false);
});

test('what is shown is an id and a secret', () => {
  const secret = newSecret();
  expect(parseShown(`wrk-1.${secret}`)).toEqual({ id: 'wrk-1', secret });
  for (const wrong of ['', secret, `wrk-1.${secret}x`, `wrk-1.${secret.slice(1)}`, `.${secret}`, `a b.${secret}`, `${'a'.repeat(81)}.${secret}`, `wrk-1.${secret}\n`]) expect(parseShown(wrong)).toBeNull();
});

test('texts of different lengths are compared, too', () => {
  expect([isSameText('token', 'token'), isSameText('toke', 'token'), isSameText('', 'token')]).toEqual([true, false, false]);
});

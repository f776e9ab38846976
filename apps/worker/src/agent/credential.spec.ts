import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentialFile, loadCredential } from './credential';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'credential-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

test('is made once, in a file that only its owner can read', async () => {
  const made = await loadCredential(join(dir, 'worker'));
  expect(made).toEqual({ secret: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/), isNew: true });
  expect(await loadCredential(join(dir, 'worker'))).toEqual({ secret: made.secret, isNew: false });
  expect((await stat(credentialFile(join(dir, 'worker')))).mode & 0o777).toBe(0o600);
  expect(await readdir(join(dir, 'worker'))).toEqual(['credential']);
});

test('a file that others could read is closed again', async () => {
  await loadCredential(dir);
  await chmod(credentialFile(dir), 0o644);
  await loadCredential(dir);
  expect((await stat(credentialFile(dir))).mode & 0o777).toBe(0o600);
});

test('something else in its place is an error that does not repeat it', async () => {
  await writeFile(credentialFile(dir), 'half-a-secret');
  await expect(loadCredential(dir)).rejects.toThrow(/holds no credential/);
  await expect(loadCredential(dir)).rejects.not.toThrow(/half-a-secret/);
});

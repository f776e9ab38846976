import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lockDataDir } from './data-dir-lock';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tunefleet-lock-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

test('a data folder is held by one service, under any of its names, until that lets go', async () => {
  const link = `${dir}-link`;
  await symlink(dir, link);
  try {
    const release = await lockDataDir(dir);
    await expect(lockDataDir(link)).rejects.toMatchObject({ code: 'conflict' });
    await release();
    await (await lockDataDir(link))();
  } finally {
    await rm(link);
  }
});

test('two folders do not stand in each other\'s way', async () => {
  const other = await mkdtemp(join(tmpdir(), 'tunefleet-lock-'));
  const releases = [await lockDataDir(dir), await lockDataDir(other)];
  for (const release of releases) await release();
  await rm(other, { recursive: true });
});

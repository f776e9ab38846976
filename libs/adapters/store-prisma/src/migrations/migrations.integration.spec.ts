import { readdirSync } from 'node:fs';
import pg from 'pg';
import { createDatabase, useDatabase } from '@tunefleet/testing';
import { migrateDatabase } from './migrate-database';
import { schemaDifference } from './schema-difference';

const databaseUrl = useDatabase();
const names = readdirSync(new URL('../../../../../prisma/migrations', import.meta.url), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)
  .sort();

test('migrates an empty database once, and then it is what schema.prisma says', async () => {
  const url = await createDatabase(databaseUrl());
  expect(await migrateDatabase(url)).toEqual(names);
  expect(await migrateDatabase(url)).toEqual([]);
  expect((await schemaDifference(url, 'database')).trim()).toMatch(/^(-- This is an empty migration\.)?$/);

  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ name: string; done: boolean }>(
      'select migration_name as name, finished_at is not null as done from _prisma_migrations order by migration_name',
    );
    expect(rows).toEqual(names.map((name) => ({ name, done: true })));
  } finally {
    await client.end();
  }
}, 60_000);

test('replicas that start together apply each migration once', async () => {
  const url = await createDatabase(databaseUrl());
  const applied = await Promise.all([migrateDatabase(url), migrateDatabase(url), migrateDatabase(url)]);
  expect(applied.flat().sort()).toEqual(names);
}, 60_000);

test('says where it looked when the database is not there', async () => {
  const url = new URL(databaseUrl());
  url.port = '1';
  await expect(migrateDatabase(url.toString())).rejects.toThrow(/cannot reach the database: .*DATABASE_URL/);
});

test('the database refuses to leave a terminal status, to lower an epoch, and a second live attempt', async () => {
  const url = await createDatabase(databaseUrl());
  await migrateDatabase(url);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(`insert into team (id, name) values ('t', 't')`);
    await client.query(`insert into worker (id, name, boot_id, status, version, device, labels, last_seen_at) values ('w', 'w', 'b', 'online', '1', '{}', '{}', now()), ('v', 'v', 'b', 'online', '1', '{}', '{}', now())`);
    await client.query(
      `insert into job (id, team_id, kind, status, spec, worker_spec, base_model, epoch, queued_at) select 'j' || n, 't', 'eval', 'running', '{}', '{}', 'm', 5, now() from generate_series(1, 2) n`,
    );
    await client.query(`insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at) values ('a', 'j1', 5, 'w', 'b', now())`);
    await expect(client.query(`insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at) values ('b', 'j1', 6, 'v', 'b', now())`)).rejects.toThrow(/attempt_one_live_per_job/);
    await expect(client.query(`insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at) values ('b', 'j2', 6, 'w', 'b', now())`)).rejects.toThrow(/worker w holds an attempt that may not share it with job j2/);
    await expect(client.query(`update job set epoch = 4 where id = 'j1'`)).rejects.toThrow(/cannot go from 5 to 4/);
    await expect(client.query(`update job set status = 'failed' where id = 'j1'`)).rejects.toThrow(/job_finished_when_terminal/);
    await client.query(`update job set status = 'cancelled', finished_at = now() where id = 'j1'`);
    await expect(client.query(`update job set status = 'running', finished_at = null where id = 'j1'`)).rejects.toThrow(/is cancelled and cannot become running/);
    await client.query(`update attempt set status = 'finished', outcome = 'stopped', finished_at = now() where id = 'a'`);
    await expect(client.query(`update attempt set outcome = 'lost' where id = 'a'`)).rejects.toThrow(/has finished \(stopped\)/);

    await client.query(`update worker set slots = 2 where id = 'w'`);
    await client.query(`insert into job (id, team_id, kind, status, spec, worker_spec, base_model, epoch, queued_at, share_key, shared_memory_bytes)
      select 's' || n, 't', 'fine-tune', 'running', '{}', '{}', 'm', 1, now(), case when n = 4 then 'other' else 'm r1' end, 1 from generate_series(1, 4) n`);
    const insert = (job: string, slot: number) =>
      client.query(`insert into attempt (id, job_id, epoch, worker_id, worker_boot_id, lease_expires_at, slot) values ($1, $2, 1, 'w', 'b', now(), $3)`, [`a-${job}`, job, slot]);
    await insert('s1', 0);
    await expect(insert('s2', 0)).rejects.toThrow(/attempt_one_live_per_slot/);
    await expect(insert('s4', 1)).rejects.toThrow(/worker w holds an attempt that may not share it with job s4/);
    await expect(insert('s2', 2)).rejects.toThrow(/worker w has no slot 2/);
    await insert('s2', 1);
  } finally {
    await client.end();
  }
}, 60_000);

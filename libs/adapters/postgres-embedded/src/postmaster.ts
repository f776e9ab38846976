import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import pg from 'pg';

/** What `postmaster.pid` says of a server that runs, or once ran, on a cluster. */
export interface Postmaster {
  readonly pid: number;
  readonly port: number;
}

/** @see PostgreSQL source, src/include/utils/pidfile.h: line 1 pid, 2 data directory, 3 start time, 4 port */
export async function readPostmaster(clusterDir: string): Promise<Postmaster | null> {
  const text = await readFile(join(clusterDir, 'postmaster.pid'), 'utf8').catch(() => null);
  if (text === null) return null;
  const lines = text.split('\n');
  const pid = Number.parseInt(lines[0] ?? '', 10);
  const port = Number.parseInt(lines[3] ?? '', 10);
  return Number.isNaN(pid) ? null : { pid, port: Number.isNaN(port) ? 0 : port };
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Process ids are used again, quickly so in containers: a live pid proves nothing until its command says postgres. */
export async function isPostgres(pid: number, clusterDir: string): Promise<boolean> {
  if (!isAlive(pid)) return false;
  const command =
    process.platform === 'linux'
      ? await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      : (spawnSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' }).stdout ?? '');
  return command.includes('postgres') && command.includes(clusterDir);
}

/** Removes the pid file of a server that is no more; PostgreSQL itself trips over a pid that another program has now. */
export async function forgetPostmaster(clusterDir: string): Promise<void> {
  await rm(join(clusterDir, 'postmaster.pid'), { force: true });
}

/** True when the server at `url` answers and works on this cluster. */
export async function answers(url: string, clusterDir: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  // A server that goes away between two queries must not end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ data_directory: string }>('show data_directory');
    return rows[0]?.data_directory === clusterDir;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

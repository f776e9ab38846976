import type pg from 'pg';
import type { Scene } from './scene';

/**
 * Where a race is stopped: the harness holds the lock until every side has come as far as it can. A row stops whoever wants to lock or write
 * that row; a table (share mode) lets look and lock rows, and stops whoever writes to it, between its look and its act.
 */
export type Hold = 'job row' | 'attempt row' | 'worker row' | 'usage row' | 'job writes' | 'attempt writes' | 'worker writes' | 'event writes' | 'metric writes' | 'usage writes';

const TABLE_OF: Partial<Record<Hold, string>> = {
  'job writes': 'job',
  'attempt writes': 'attempt',
  'worker writes': 'worker',
  'event writes': 'job_event',
  'metric writes': 'metric_point',
  'usage writes': 'team_usage',
};

/** In a transaction of `client`, which ends it when the race may go on. */
export async function take(client: pg.Client, hold: Hold, scene: Scene): Promise<void> {
  await client.query('begin');
  const table = TABLE_OF[hold];
  if (table !== undefined) await client.query(`lock table "${table}" in share mode`);
  else if (hold === 'job row') await client.query('select 1 from job where id = $1 for update', [scene.jobId]);
  else if (hold === 'attempt row') await client.query('select 1 from attempt where id = $1 for update', [scene.key?.attemptId ?? scene.zombie?.attemptId ?? '']);
  else if (hold === 'worker row') await client.query('select 1 from worker where id = $1 for update', [scene.workers[0].id]);
  else await client.query('select 1 from team_usage where team_id = $1 for update', [scene.teamId]);
}

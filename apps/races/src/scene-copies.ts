import type pg from 'pg';
import { newId } from '@tunefleet/foundation';
import type { Store } from '@tunefleet/store-prisma';
import { setScene, type Scene, type Start } from './scene';

/** In the order of their foreign keys. Events are left out: none that came before a race says anything about it. */
const TABLES = ['team', 'job', 'worker', 'attempt', 'metric_point', 'team_usage'] as const;

const ROWS: Readonly<Record<(typeof TABLES)[number], string>> = {
  team: 'id = $1',
  job: 'team_id = $1',
  worker: 'id = any($2)',
  attempt: 'job_id in (select id from job where team_id = $1)',
  metric_point: 'job_id in (select id from job where team_id = $1)',
  team_usage: 'team_id = $1',
};

interface Original {
  readonly scene: Scene;
  /** Per table, a JSON list. */
  readonly rows: readonly string[];
}

/** Scenes as the store sets them, each once; further ones are copies of its rows under other ids, which takes one statement instead of fifty. */
export class SceneCopies {
  private readonly originals = new Map<string, Promise<Original>>();

  constructor(
    private readonly store: Store,
    private readonly client: pg.Client,
  ) {}

  async take(start: Start, withOthers: boolean): Promise<Scene> {
    const name = `${start} ${withOthers}`;
    const making = this.originals.get(name) ?? this.make(start, withOthers);
    this.originals.set(name, making);
    const { scene, rows } = await making;
    const renamed = renaming(scene);
    const inserts = TABLES.map((table, index) => `${index === TABLES.length - 1 ? '' : `${table}_rows as (`}insert into "${table}" select * from jsonb_populate_recordset(null::"${table}", $${index + 1})${index === TABLES.length - 1 ? '' : ')'}`);
    await this.client.query(`with ${inserts.slice(0, -1).join(', ')} ${inserts.at(-1)}`, rows.map(renamed));
    return JSON.parse(renamed(JSON.stringify(scene))) as Scene;
  }

  private async make(start: Start, withOthers: boolean): Promise<Original> {
    const scene = await setScene(this.store, start, withOthers);
    const rows: string[] = [];
    for (const table of TABLES) {
      const condition = ROWS[table];
      const values = [...(condition.includes('$1') ? [scene.teamId] : []), ...(condition.includes('$2') ? [scene.workers.map(({ id }) => id)] : [])];
      const { rows: found } = await this.client.query<{ list: string }>(`select coalesce(jsonb_agg(to_jsonb(t)), '[]')::text as list from "${table}" t where ${condition.replace('$2', '$1')}`, values);
      rows.push(found[0]?.list ?? '[]');
    }
    return { scene, rows };
  }
}

/** Gives every id of the scene another one, wherever it stands. */
function renaming(scene: Scene): (text: string) => string {
  const ids = [scene.teamId, scene.teamName, scene.jobId, scene.otherJobId, ...(scene.joinerIds ?? []), scene.key?.attemptId, scene.zombie?.attemptId, ...scene.workers.flatMap(({ id, sessionId }) => [id, sessionId])].filter((id) => id != null);
  const other = new Map(ids.map((id) => [id, newId('file')]));
  return (text) => [...other].reduce((renamed, [from, to]) => renamed.replaceAll(from, to), text);
}

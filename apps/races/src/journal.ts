import type pg from 'pg';

/** Who wrote: the connection's `application_name`. */
export type Side = 'a' | 'b' | 'c';
export const SIDES: readonly Side[] = ['a', 'b', 'c'];
export const nameOf = (side: Side): string => `race-${side}`;

export type Row = Readonly<Record<string, unknown>>;

/** One row as it was and as it became, in the order of the writes to that row. Writes that were rolled back are not in it. */
export interface Change {
  readonly side: Side;
  readonly table: 'job' | 'attempt' | 'worker' | 'metric_point' | 'checkpoint' | 'adapter' | 'file' | 'job_event' | 'team_usage';
  /** Of the transaction. */
  readonly xid: string;
  readonly before: Row | null;
  readonly after: Row;
}

const TABLES = ['job', 'attempt', 'worker', 'metric_point', 'checkpoint', 'adapter', 'file', 'job_event', 'team_usage'];

/** Makes the database keep a journal of what the sides of a race write. Only the harness's databases have it. */
export async function installJournal(client: pg.Client): Promise<void> {
  await client.query(`
    create unlogged table race_journal (id bigserial primary key, side text not null, "table" text not null, xid text not null, before jsonb, after jsonb not null);
    create function race_note() returns trigger language plpgsql as $$
    begin
      if current_setting('application_name') like 'race-_' then
        insert into race_journal (side, "table", xid, before, after)
        values (right(current_setting('application_name'), 1), tg_table_name, pg_current_xact_id()::text, case when tg_op = 'UPDATE' then to_jsonb(old) end, to_jsonb(new));
      end if;
      return null;
    end $$;`);
  for (const table of TABLES) await client.query(`create trigger race_note after insert or update on "${table}" for each row execute function race_note()`);
}

/** What was written since it was taken last. */
export async function takeJournal(client: pg.Client): Promise<Change[]> {
  const { rows } = await client.query<Change & { readonly id: string }>('with taken as (delete from race_journal returning *) select * from taken order by id');
  return rows;
}

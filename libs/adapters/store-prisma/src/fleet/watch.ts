import { invariant } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';
import type { Database } from '../database/database';

export function watchMethods(db: Database): Pick<FleetStore, 'keepWatch'> {
  return {
    keepWatch: (gapMs) =>
      db.repeating(async () => {
        // The row is locked before the time is read, so that it never goes back.
        const [row] = await db.statements.$queryRaw<{ watched_ms: number }[]>`
          insert into fleet_watch as w (id) values (1)
          on conflict (id) do update set
            since = case when w.last_at < clock_timestamp() - make_interval(secs => ${gapMs / 1000}::float8) then clock_timestamp() else w.since end,
            last_at = clock_timestamp()
          returning greatest(0, extract(epoch from last_at - since) * 1000)::float8 as watched_ms`;
        invariant(row !== undefined, 'the watch was not told');
        return row.watched_ms;
      }),
  };
}

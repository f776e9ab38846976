import { TunefleetError } from '@tunefleet/foundation';
import type { Page } from '@tunefleet/ports';

/** `rows` holds up to one more than was asked for. */
export function toPage<Row, Item>(rows: readonly Row[], limit: number, map: (row: Row) => Item): Page<Item> {
  return { items: rows.slice(0, limit).map(map), hasMore: rows.length > limit };
}

export function unknownAfter(after: string): TunefleetError {
  return new TunefleetError('not_found', `no such item: '${after}'. The parameter 'after' takes the id of an item of this list`, { param: 'after' });
}

/** Puts rows into the order of `ids`; rows that vanished meanwhile are left out. */
export function inOrder<Row extends { id: string }>(ids: readonly string[], rows: readonly Row[]): Row[] {
  const byId = new Map(rows.map((row) => [row.id, row]));
  return ids.flatMap((id) => byId.get(id) ?? []);
}

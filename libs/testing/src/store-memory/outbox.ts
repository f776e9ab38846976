import type { Outbox } from '@tunefleet/ports';
import type { OutboxRow, Tables } from './tables';

export function memoryOutbox(tables: Tables): Outbox {
  /** Rows that a relay is at work on. */
  const held = new Set<string>();
  return {
    relay: async (limit, publish) => {
      const rows: OutboxRow[] = [];
      for (const id of tables.owed) {
        if (rows.length >= limit) break;
        if (!held.has(id)) rows.push(tables.outbox.get(id) as OutboxRow);
      }
      for (const { id } of rows) held.add(id);
      let published = 0;
      for (const row of rows) {
        try {
          await publish({ id: row.id, queue: row.queue, messageId: row.messageId, payload: row.payload });
          row.publishedAtMs = tables.nowMs();
          tables.owed.delete(row.id);
          tables.published.add(row.id);
          published++;
        } catch {
          // It stays owed.
        }
      }
      for (const { id } of rows) held.delete(id);
      return published;
    },
    lagMs: async () => {
      const [oldest] = tables.owed;
      return oldest === undefined ? 0 : tables.nowMs() - (tables.outbox.get(oldest) as OutboxRow).createdAtMs;
    },
  };
}

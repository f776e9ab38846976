import type { Outbox } from '@tunefleet/ports';
import type { Tables } from './tables';

export function memoryOutbox(tables: Tables): Outbox {
  /** Rows that a relay is at work on. */
  const held = new Set<string>();
  return {
    relay: async (limit, publish) => {
      const rows = [...tables.outbox.values()].filter(({ id, publishedAtMs }) => publishedAtMs === null && !held.has(id)).slice(0, limit);
      for (const { id } of rows) held.add(id);
      let published = 0;
      for (const row of rows) {
        try {
          await publish({ id: row.id, queue: row.queue, messageId: row.messageId, payload: row.payload });
          row.publishedAtMs = tables.nowMs();
          published++;
        } catch {
          // It stays owed.
        }
      }
      for (const { id } of rows) held.delete(id);
      return published;
    },
    lagMs: async () => {
      const oldest = [...tables.outbox.values()].find(({ publishedAtMs }) => publishedAtMs === null);
      return oldest === undefined ? 0 : tables.nowMs() - oldest.createdAtMs;
    },
    prune: async (olderThanMs) => {
      const beforeMs = tables.nowMs() - olderThanMs;
      const gone = [...tables.outbox.values()].filter(({ publishedAtMs }) => publishedAtMs !== null && publishedAtMs < beforeMs);
      for (const { id } of gone) tables.outbox.delete(id);
      return gone.length;
    },
  };
}

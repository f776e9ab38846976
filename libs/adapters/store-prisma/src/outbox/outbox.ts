import { errorMessage, type JsonObject, type Logger } from '@tunefleet/foundation';
import type { Outbox } from '@tunefleet/ports';
import type { Database } from '../database/database';

interface OutboxRow {
  readonly id: string;
  readonly queue: string;
  readonly message_id: string;
  readonly payload: JsonObject;
}

export function prismaOutbox(db: Database, logger: Logger): Outbox {
  return {
    relay: (limit, publish) =>
      db.atomically(async (tx) => {
        // Rows another relay holds are skipped. A crash before the commit publishes again: the queue ignores known ids.
        const rows = await tx.$queryRaw<OutboxRow[]>`
          select id, queue, message_id, payload from outbox
          where published_at is null
          order by created_at, id
          limit ${limit}
          for update skip locked`;
        const published: string[] = [];
        for (const row of rows) {
          try {
            await publish({ id: row.id, queue: row.queue, messageId: row.message_id, payload: row.payload });
            published.push(row.id);
          } catch (error) {
            logger.warn({ messageId: row.message_id, queue: row.queue, reason: errorMessage(error) }, 'a message could not be handed to the queue; it stays in the outbox');
          }
        }
        if (published.length > 0) {
          await tx.$executeRaw`update outbox set published_at = clock_timestamp() where id = any(${published}::text[])`;
        }
        return published.length;
      }),

    lagMs: () =>
      db.repeating(async () => {
        const [row] = await db.statements.$queryRaw<{ lag: number | null }[]>`
          select extract(epoch from clock_timestamp() - min(created_at))::float8 * 1000 as lag from outbox where published_at is null`;
        return Math.max(0, row?.lag ?? 0);
      }),
  };
}

import type { RecordStore } from '@tunefleet/ports';

type MessageStore = Pick<RecordStore, 'listEvents' | 'appendEvent' | 'appendEventOnce'>;

/** A job in intake has a handful of messages: one page holds them all. */
const PAGE = 100;

/** Says something to the job's owner once, however often intake starts over. */
export function sayOnce(records: MessageStore, jobId: string, level: 'info' | 'warn', message: string): Promise<void> {
  return records.appendEventOnce({ jobId, level, type: 'message', message, data: null });
}

const WAITING = 'waiting_for_infrastructure';

/**
 * Notes that intake waits for something that should be there (the hub, the database), so that every later try, in whatever process, knows since when.
 * @returns since when, milliseconds since the epoch
 */
export async function noteWaiting(records: MessageStore, jobId: string, reason: string, nowMs: number): Promise<number> {
  const { items } = await records.listEvents(jobId, { limit: PAGE });
  const earlier = items.find(({ data }) => typeof data === 'object' && data !== null && 'intake' in data && data.intake === WAITING);
  if (earlier !== undefined) return earlier.createdAt.getTime();
  await records.appendEvent({ jobId, level: 'warn', type: 'message', message: `${reason}. Trying again`, data: { intake: WAITING } });
  return nowMs;
}

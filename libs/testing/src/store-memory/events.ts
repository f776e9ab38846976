import type { JsonValue } from '@tunefleet/foundation';
import type { JobEventRecord } from '@tunefleet/ports';
import { storable } from './storable';
import type { Tables } from './tables';

export type NewEvent = Pick<JobEventRecord, 'level' | 'type' | 'message'> & { readonly data?: JsonValue };

let lastEvent = 0;

export function insertEvents(tables: Tables, jobId: string, events: readonly NewEvent[]): void {
  const list = tables.events.get(jobId) ?? [];
  tables.events.set(jobId, list);
  for (const { level, type, message, data } of events) {
    const id = `ftevent-${String(++lastEvent).padStart(12, '0')}`;
    list.push({ id, jobId, level, type, message: storable(message.slice(0, 4000)), data: storable(data ?? null), createdAt: tables.now() });
  }
}

export function say(tables: Tables, jobId: string, message: string, level: NewEvent['level'] = 'info', data?: JsonValue): void {
  insertEvents(tables, jobId, [{ level, type: 'message', message, ...(data === undefined ? {} : { data }) }]);
}

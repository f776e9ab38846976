import { newId, systemClock, type Clock, type IdKind } from '@tunefleet/foundation';
import type { FleetAccess, FleetStore, Outbox, RecordStore, WakeTopic } from '@tunefleet/ports';
import { accessMethods } from './access';
import { assignmentMethods } from './assignments';
import { endingMethods } from './endings';
import { jobMethods } from './jobs';
import { memoryOutbox } from './outbox';
import { recordMethods } from './records';
import { stopMethods } from './stops';
import { Tables, type Change } from './tables';
import { watchdogMethods } from './watchdog';
import { workerEventMethods } from './worker-events';
import { workerMethods } from './workers';

export interface MemoryStoreOptions {
  /** The database's clock. */
  readonly clock?: Pick<Clock, 'now'>;
  /** Ids must sort in the order in which they are made. */
  readonly newId?: (kind: IdKind) => string;
  readonly onChange?: (change: Change) => void;
  /** Hands a wake-up to one listener: at once, later, twice or never. */
  readonly deliver?: (run: () => void) => void;
}

export interface MemoryStore {
  readonly records: RecordStore;
  readonly fleet: FleetStore;
  readonly access: FleetAccess;
  readonly outbox: Outbox;
  readonly tables: Tables;
  close(): Promise<void>;
}

/** The whole record in memory, for tests and simulations: it passes the same conformance suites as the one in PostgreSQL, and nothing of it waits. */
export function openStoreMemory(options: MemoryStoreOptions = {}): MemoryStore {
  const listeners = new Set<(topic: WakeTopic) => void>();
  const deliver = options.deliver ?? queueMicrotask;
  const announce = (topic: WakeTopic): void => {
    for (const listener of listeners) deliver(() => listeners.has(listener) && listener(topic));
  };
  const tables = new Tables({ clock: options.clock ?? systemClock, newId: options.newId ?? newId, onChange: options.onChange ?? (() => undefined), announce });
  return {
    tables,
    records: { ...jobMethods(tables), ...recordMethods(tables) },
    fleet: {
      ...workerMethods(tables),
      ...assignmentMethods(tables),
      ...endingMethods(tables),
      ...workerEventMethods(tables),
      ...stopMethods(tables),
      ...watchdogMethods(tables),
      onWake: async (callback) => {
        const listener = (topic: WakeTopic): void => callback(topic);
        listeners.add(listener);
        return { close: async () => void listeners.delete(listener) };
      },
      wake: async (topic) => announce(topic),
    },
    access: accessMethods(tables),
    outbox: memoryOutbox(tables),
    close: async () => listeners.clear(),
  };
}

import { controlsConformance, fleetAccessConformance, fleetStoreConformance, outboxConformance, recordStoreConformance, schedulingConformance, sharingConformance } from '@tunefleet/ports/conformance';
import { openStoreMemory, type MemoryStore } from './open-store-memory';

/** A database's clock never says the same time twice; this one goes on a millisecond with every look. */
function tickingClock(): { now(): number } {
  let nowMs = Date.now();
  return { now: () => ++nowMs };
}

const open = async (): Promise<MemoryStore> => openStoreMemory({ clock: tickingClock() });

recordStoreConformance('memory', open);
fleetStoreConformance('memory', open);
fleetAccessConformance('memory', open);
controlsConformance('memory', open);
schedulingConformance('memory', open);
sharingConformance('memory', open);
outboxConformance('memory', open);

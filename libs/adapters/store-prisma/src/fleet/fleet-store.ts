import type { FleetStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { announce, type WakeChannel } from '../database/wake-channel';
import { assignmentMethods } from './assignments';
import { endingMethods } from './endings';
import { placementMethods } from './placement';
import { stopMethods } from './stops';
import { watchMethods } from './watch';
import { watchdogMethods } from './watchdog';
import { workerMethods } from './workers';

export function prismaFleetStore(db: Database, wakes: WakeChannel): FleetStore {
  return {
    ...workerMethods(db),
    ...placementMethods(db),
    ...assignmentMethods(db),
    ...endingMethods(db),
    ...stopMethods(db),
    ...watchdogMethods(db),
    ...watchMethods(db),
    onWake: (callback) => wakes.subscribe(callback),
    wake: (topic) => db.repeating(() => announce(db.statements, topic)),
  };
}

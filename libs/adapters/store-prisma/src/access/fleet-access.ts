import type { FleetAccess } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { artifactAccessMethods } from './artifact-access';
import { credentialMethods } from './credentials';
import { joinTokenMethods } from './join-tokens';

export function prismaFleetAccess(db: Database): FleetAccess {
  return { ...joinTokenMethods(db), ...credentialMethods(db), ...artifactAccessMethods(db) };
}

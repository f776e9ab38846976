import { teamListSchema, teamSchema, type ChangeTeam, type PutQuota, type TeamView } from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Teams with their quotas and what they have of them. */
export class Teams {
  constructor(private readonly transport: Transport) {}

  list({ signal }: CallOptions = {}): Promise<z.infer<typeof teamListSchema>> {
    return this.transport.json(teamListSchema, { path: path('/api/v1', 'teams'), signal });
  }

  get(name: string, { signal }: CallOptions = {}): Promise<TeamView> {
    return this.transport.json(teamSchema, { path: path('/api/v1', 'teams', name), signal });
  }

  /** What is left out stays; null lifts a bound. */
  change(name: string, changes: ChangeTeam, { signal }: CallOptions = {}): Promise<TeamView> {
    return this.transport.json(teamSchema, { method: 'PATCH', path: path('/api/v1', 'teams', name), json: changes, repeatable: true, signal });
  }

  /** All of it: what is left out has no bound. */
  setQuota(name: string, quota: PutQuota, { signal }: CallOptions = {}): Promise<TeamView> {
    return this.transport.json(teamSchema, { method: 'PUT', path: path('/api/v1', 'teams', name, 'quota'), json: quota, repeatable: true, signal });
  }
}

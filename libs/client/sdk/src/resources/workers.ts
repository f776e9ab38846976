import { workerListSchema } from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Machines that run jobs. */
export class Workers {
  constructor(private readonly transport: Transport) {}

  list({ signal }: CallOptions = {}): Promise<z.infer<typeof workerListSchema>> {
    return this.transport.json(workerListSchema, { path: path('/api/v1', 'workers'), signal });
  }
}

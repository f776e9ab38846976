import { workerListSchema, workerSchema, type WorkerView } from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Machines that run jobs. */
export class Workers {
  constructor(private readonly transport: Transport) {}

  list({ signal }: CallOptions = {}): Promise<z.infer<typeof workerListSchema>> {
    return this.transport.json(workerListSchema, { path: path('/api/v1', 'workers'), signal });
  }

  /** It gets no new jobs; what it runs goes on. */
  cordon(id: string, { signal }: CallOptions = {}): Promise<WorkerView> {
    return this.transport.json(workerSchema, { method: 'POST', path: path('/api/v1', 'workers', id, 'cordon'), repeatable: true, signal });
  }

  uncordon(id: string, { signal }: CallOptions = {}): Promise<WorkerView> {
    return this.transport.json(workerSchema, { method: 'POST', path: path('/api/v1', 'workers', id, 'uncordon'), repeatable: true, signal });
  }
}

import { workerListSchema, workerSchema, type DrainWorker, type WorkerView } from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Machines that run jobs. */
export class Workers {
  constructor(private readonly transport: Transport) {}

  list({ signal }: CallOptions = {}): Promise<z.infer<typeof workerListSchema>> {
    return this.transport.json(workerListSchema, { path: path('/api/v1', 'workers'), signal });
  }

  /** It gets no new jobs; what it runs goes on. */
  cordon(id: string, reason?: string, { signal }: CallOptions = {}): Promise<WorkerView> {
    return this.transport.json(workerSchema, { method: 'POST', path: path('/api/v1', 'workers', id, 'cordon'), json: reason === undefined ? {} : { reason }, repeatable: true, signal });
  }

  /** It gets jobs again, also after a drain. */
  uncordon(id: string, { signal }: CallOptions = {}): Promise<WorkerView> {
    return this.transport.json(workerSchema, { method: 'POST', path: path('/api/v1', 'workers', id, 'uncordon'), repeatable: true, signal });
  }

  /** Cordons it and empties it: its job ends, or writes a checkpoint and goes on elsewhere. */
  drain(id: string, how: DrainWorker = {}, { signal }: CallOptions = {}): Promise<WorkerView> {
    return this.transport.json(workerSchema, { method: 'POST', path: path('/api/v1', 'workers', id, 'drain'), json: how, repeatable: true, signal });
  }
}

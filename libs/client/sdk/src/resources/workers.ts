import {
  newWorkerTokenSchema,
  revokedWorkerSchema,
  workerListSchema,
  workerSchema,
  workerTokenListSchema,
  workerTokenSchema,
  type CreateWorkerToken,
  type DrainWorker,
  type NewWorkerTokenView,
  type RevokedWorkerView,
  type WorkerTokenView,
  type WorkerView,
} from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Tokens by which machines join the fleet. */
export class WorkerTokens {
  constructor(private readonly transport: Transport) {}

  /** The answer is the only one that holds the token itself. */
  create(token: CreateWorkerToken = {}, { signal }: CallOptions = {}): Promise<NewWorkerTokenView> {
    return this.transport.json(newWorkerTokenSchema, { method: 'POST', path: path('/api/v1', 'workers', 'tokens'), json: token, signal });
  }

  /** The newest hundred. */
  list({ signal }: CallOptions = {}): Promise<z.infer<typeof workerTokenListSchema>> {
    return this.transport.json(workerTokenListSchema, { path: path('/api/v1', 'workers', 'tokens'), signal });
  }

  /** Nobody joins with it any more; workers that have stay. */
  revoke(id: string, { signal }: CallOptions = {}): Promise<WorkerTokenView> {
    return this.transport.json(workerTokenSchema, { method: 'POST', path: path('/api/v1', 'workers', 'tokens', id, 'revoke'), repeatable: true, signal });
  }
}

/** Machines that run jobs. */
export class Workers {
  readonly tokens: WorkerTokens;

  constructor(private readonly transport: Transport) {
    this.tokens = new WorkerTokens(transport);
  }

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

  /** Bars it for ever: its connection ends, and its job goes on elsewhere. */
  revoke(id: string, reason?: string, { signal }: CallOptions = {}): Promise<RevokedWorkerView> {
    return this.transport.json(revokedWorkerSchema, { method: 'POST', path: path('/api/v1', 'workers', id, 'revoke'), json: reason === undefined ? {} : { reason }, repeatable: true, signal });
  }
}

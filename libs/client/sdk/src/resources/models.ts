import { apiModelSchema, modelDeletedSchema, modelListSchema, type ApiModel } from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Base models and tuned ones, by their callable names. */
export class Models {
  constructor(private readonly transport: Transport) {}

  list({ signal }: CallOptions = {}): Promise<z.infer<typeof modelListSchema>> {
    return this.transport.json(modelListSchema, { path: path('/v1', 'models'), signal });
  }

  get(name: string, { signal }: CallOptions = {}): Promise<ApiModel> {
    return this.transport.json(apiModelSchema, { path: path('/v1', 'models', name), signal });
  }

  /** Tuned models only. */
  delete(name: string, { signal }: CallOptions = {}): Promise<z.infer<typeof modelDeletedSchema>> {
    return this.transport.json(modelDeletedSchema, { method: 'DELETE', path: path('/v1', 'models', name), signal });
  }
}

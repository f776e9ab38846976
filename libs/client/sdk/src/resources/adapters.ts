import { adapterListSchema, adapterSchema, type AdapterView } from '@tunefleet/contracts';
import type { z } from 'zod';
import { path, type CallOptions, type Transport } from '../http/transport';

/** Tuned weights on record, each a folder in PEFT's format. */
export class Adapters {
  constructor(private readonly transport: Transport) {}

  /** All of them, newest first. */
  list({ signal }: CallOptions = {}): Promise<z.infer<typeof adapterListSchema>> {
    return this.transport.json(adapterListSchema, { path: path('/api/v1', 'adapters'), signal });
  }

  get(id: string, { signal }: CallOptions = {}): Promise<AdapterView> {
    return this.transport.json(adapterSchema, { path: path('/api/v1', 'adapters', id), signal });
  }

  /** One file of the folder, as its bytes come; check them against its `sha256`. */
  file(id: string, name: string, { signal }: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.transport.bytes({ path: path('/api/v1', 'adapters', id, 'files', name), headers: { accept: 'application/octet-stream' }, signal });
  }
}

import { once } from 'node:events';
import type { ServerReadableStream, ServerWritableStream } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { AttemptKey, BlobStore, FleetStore } from '@tunefleet/ports';
import type { FleetSettings } from './settings';
import { parseArtifactHeader, parseArtifactRequest } from './worker-input';

/** Bulk data of attempts, by content hash. Only an attempt that is still live may read or write. */
export class ArtifactService {
  constructor(
    private readonly store: Pick<FleetStore, 'isLive'>,
    private readonly blobs: BlobStore,
    private readonly settings: FleetSettings,
  ) {}

  /** @throws lease_lost, invalid_input (size, hash, order of messages) */
  async put(call: ServerReadableStream<fleet.PutArtifactRequest, fleet.PutArtifactResponse>): Promise<fleet.PutArtifactResponse> {
    const parts: AsyncIterator<unknown> = call[Symbol.asyncIterator]();
    const first = await parts.next();
    if (first.done === true) throw new TunefleetError('invalid_input', 'an artifact upload must start with its header');
    const { attempt, artifact } = parseArtifactHeader(first.value as fleet.PutArtifactRequest);
    await this.requireLive(attempt);
    if (artifact.bytes > this.settings.maxArtifactBytes) {
      throw new TunefleetError('invalid_input', `artifact ${artifact.name} has ${artifact.bytes} bytes; the limit is ${this.settings.maxArtifactBytes}`);
    }
    if ((await this.blobs.stat(artifact.sha256)) !== null) return { alreadyPresent: true };
    await this.blobs.put(dataOf(parts), { maxBytes: artifact.bytes, expected: { sha256: artifact.sha256, bytes: artifact.bytes } });
    return { alreadyPresent: false };
  }

  /** Writes the bytes from the offset on, at the pace the worker reads. @throws lease_lost, not_found, invalid_input */
  async get(call: ServerWritableStream<fleet.GetArtifactRequest, fleet.ArtifactChunk>): Promise<void> {
    const { attempt, sha256, offset } = parseArtifactRequest(call.request);
    await this.requireLive(attempt);
    const info = await this.blobs.stat(sha256);
    if (info === null) throw new TunefleetError('not_found', `no artifact ${sha256}`);
    if (offset > info.bytes) throw new TunefleetError('invalid_input', `offset ${offset} is beyond the artifact's ${info.bytes} bytes`);
    if (offset === info.bytes) return;
    const cancelled = new AbortController();
    call.once('cancelled', () => cancelled.abort());
    const source = await this.blobs.open(sha256, { offset });
    try {
      for await (const block of source as AsyncIterable<Buffer>) {
        for (let start = 0; start < block.length; start += this.settings.artifactChunkBytes) {
          if (call.cancelled) return;
          const data = block.subarray(start, start + this.settings.artifactChunkBytes);
          if (!call.write({ data })) await once(call, 'drain', { signal: cancelled.signal });
        }
      }
    } catch (error) {
      if (!call.cancelled) throw error;
    } finally {
      source.destroy();
    }
  }

  private async requireLive(key: AttemptKey): Promise<void> {
    if (!(await this.store.isLive(key))) throw new TunefleetError('lease_lost', `attempt ${key.attemptId} (epoch ${key.epoch}) is over`);
  }
}

async function* dataOf(parts: AsyncIterator<unknown>): AsyncIterable<Uint8Array> {
  for (;;) {
    const next = await parts.next();
    if (next.done === true) return;
    const { part } = next.value as fleet.PutArtifactRequest;
    if (part?.$case !== 'data') throw new TunefleetError('invalid_input', 'after its header an artifact upload consists of data');
    yield part.value;
  }
}

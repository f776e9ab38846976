import { once } from 'node:events';
import type { ServerReadableStream, ServerWritableStream } from '@grpc/grpc-js';
import type { ArtifactRef, fleet } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { AttemptKey, BlobStore, FleetAccess } from '@tunefleet/ports';
import type { FleetSettings } from './settings';
import { collectArtifacts } from './spec-artifacts';
import { parseArtifactHeader, parseArtifactRequest } from './worker-input';

/** Who calls, and when the call must end early. */
export interface ArtifactCaller {
  readonly workerId: string;
  readonly signal: AbortSignal;
}

/**
 * Bulk data of attempts, by content hash. A worker writes only for a live attempt of its own and reads only what that attempt was given: the
 * artifacts its spec names and the checkpoint it resumes from.
 */
export class ArtifactService {
  /** Bytes announced by uploads under way, by worker. */
  private readonly underWay = new Map<string, number>();

  constructor(
    private readonly access: Pick<FleetAccess, 'inputsOf' | 'isHeldBy' | 'noteUpload' | 'missingUploads' | 'unpublishedBytes'>,
    private readonly blobs: BlobStore,
    private readonly settings: FleetSettings,
  ) {}

  /** @throws lease_lost, invalid_input (size, hash, order of messages) */
  async put(call: ServerReadableStream<fleet.PutArtifactRequest, fleet.PutArtifactResponse>, { workerId, signal }: ArtifactCaller): Promise<fleet.PutArtifactResponse> {
    const stop = (): unknown => call.destroy(signal.reason as Error);
    signal.addEventListener('abort', stop, { once: true });
    try {
      const parts: AsyncIterator<unknown> = call[Symbol.asyncIterator]();
      const first = await parts.next();
      if (first.done === true) throw new TunefleetError('invalid_input', 'an artifact upload must start with its header');
      const { attempt, artifact } = parseArtifactHeader(first.value as fleet.PutArtifactRequest);
      if (!(await this.access.isHeldBy(workerId, attempt))) throw over(attempt);
      if (artifact.bytes > this.settings.maxArtifactBytes) {
        throw new TunefleetError('invalid_input', `artifact ${artifact.name} has ${artifact.bytes} bytes; the limit is ${this.settings.maxArtifactBytes}`);
      }
      if (await this.wasSent(attempt, artifact)) return { alreadyPresent: true };
      const settle = await this.reserve(workerId, attempt, artifact);
      try {
        await this.blobs.put(dataOf(parts), { maxBytes: artifact.bytes, expected: { sha256: artifact.sha256, bytes: artifact.bytes } });
      } finally {
        settle();
      }
      if (!(await this.access.noteUpload(workerId, attempt, artifact))) throw over(attempt);
      return { alreadyPresent: false };
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  /** Writes the bytes from the offset on, at the pace the worker reads. @throws lease_lost, not_found, invalid_input */
  async get(call: ServerWritableStream<fleet.GetArtifactRequest, fleet.ArtifactChunk>, { workerId, signal }: ArtifactCaller): Promise<void> {
    const { attempt, sha256, offset } = parseArtifactRequest(call.request);
    const inputs = await this.access.inputsOf(workerId, attempt);
    if (inputs === null) throw over(attempt);
    const isInput = [...collectArtifacts(inputs.workerSpec), ...inputs.resume].some((artifact) => artifact.sha256 === sha256);
    const info = isInput ? await this.blobs.stat(sha256) : null;
    // The same answer for what is not there and for what is not the attempt's: the store tells nobody what it holds.
    if (info === null) throw new TunefleetError('not_found', `attempt ${attempt.attemptId} has no input ${sha256}`);
    if (offset > info.bytes) throw new TunefleetError('invalid_input', `offset ${offset} is beyond the artifact's ${info.bytes} bytes`);
    if (offset === info.bytes) return;
    const ended = new AbortController();
    const end = (): void => ended.abort();
    call.once('cancelled', end);
    signal.addEventListener('abort', end, { once: true });
    const source = await this.blobs.open(sha256, { offset });
    try {
      for await (const block of source as AsyncIterable<Buffer>) {
        for (let start = 0; start < block.length; start += this.settings.artifactChunkBytes) {
          if (call.cancelled) return;
          signal.throwIfAborted();
          const data = block.subarray(start, start + this.settings.artifactChunkBytes);
          if (!call.write({ data })) await once(call, 'drain', { signal: ended.signal });
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!call.cancelled) throw error;
    } finally {
      signal.removeEventListener('abort', end);
      source.destroy();
    }
  }

  /**
   * A worker has one live attempt, so what was sent for its job is what it has sent. What earlier workers sent for it in vain counts, too.
   * @returns what to call when the upload has ended    @throws invalid_input
   */
  private async reserve(workerId: string, { jobId }: AttemptKey, { name, bytes }: ArtifactRef): Promise<() => void> {
    const { maxUnpublishedBytes } = this.settings;
    const change = (by: number): void => void this.underWay.set(workerId, (this.underWay.get(workerId) ?? 0) + by);
    change(bytes);
    const settle = (): void => {
      change(-bytes);
      if (this.underWay.get(workerId) === 0) this.underWay.delete(workerId);
    };
    try {
      const total = (await this.access.unpublishedBytes(jobId)) + (this.underWay.get(workerId) ?? 0);
      if (total <= maxUnpublishedBytes) return settle;
      throw new TunefleetError('invalid_input', `with artifact ${name} (${bytes} bytes) worker ${workerId} would have ${total} bytes under way or in no checkpoint yet; the limit is ${maxUnpublishedBytes}. TUNEFLEET_WORKER_UPLOAD_BYTES of the control plane raises it`, {
        reason: 'upload_limit',
      });
    } catch (error) {
      settle();
      throw error;
    }
  }

  /** An upload whose answer was lost is not made again. Bytes that came from elsewhere do not count: to know a hash is not to have the bytes. */
  private async wasSent(attempt: AttemptKey, artifact: ArtifactRef): Promise<boolean> {
    if ((await this.access.missingUploads(attempt.jobId, [artifact])).length > 0) return false;
    return (await this.blobs.stat(artifact.sha256)) !== null;
  }
}

/** The same for an attempt that is over and one that is another worker's. */
function over(key: AttemptKey): TunefleetError {
  return new TunefleetError('lease_lost', `attempt ${key.attemptId} (epoch ${key.epoch}) is over or not this worker's`);
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

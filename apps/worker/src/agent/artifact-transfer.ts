import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { status, type ClientWritableStream, type Metadata } from '@grpc/grpc-js';
import type { ArtifactRef, fleet } from '@tunefleet/contracts';
import { backoffDelayMs, errorMessage, sleep, TunefleetError, type BackoffPolicy, type Logger } from '@tunefleet/foundation';

export interface TransferOptions {
  readonly client: fleet.FleetClient;
  readonly metadata: Metadata;
  readonly chunkBytes: () => number;
  readonly backoff: BackoffPolicy;
  readonly logger: Logger;
}

/** Errors that the same call would meet again. */
const FINAL_CODES: ReadonlySet<number> = new Set([status.NOT_FOUND, status.INVALID_ARGUMENT, status.FAILED_PRECONDITION, status.UNAUTHENTICATED, status.PERMISSION_DENIED]);

/** Moves artifacts of one attempt between disk and control plane; cut transfers are tried again until the signal aborts. */
export class ArtifactTransfer {
  constructor(private readonly options: TransferOptions) {}

  /** Uploads a file. @throws lease_lost when the attempt is over, invalid_input when the server refuses it, cancelled on abort */
  upload(attempt: fleet.AttemptRef, artifact: ArtifactRef, file: string, signal: AbortSignal): Promise<void> {
    return this.persist(`upload of ${artifact.name}`, signal, () => this.uploadOnce(attempt, artifact, file, signal));
  }

  /** Appends to `file` what is missing of the artifact; after a cut it goes on where the file ends. @throws as `upload`, and not_found */
  download(attempt: fleet.AttemptRef, artifact: ArtifactRef, file: string, signal: AbortSignal): Promise<void> {
    return this.persist(`download of ${artifact.name}`, signal, async () => {
      const handle = await open(file, 'a');
      const { size: offset } = await handle.stat();
      const call = this.options.client.getArtifact({ attempt, sha256: artifact.sha256, offset }, this.options.metadata);
      const abort = (): void => call.cancel();
      signal.addEventListener('abort', abort, { once: true });
      try {
        // Written one by one and waited for, so that the file's size is exact when a cut comes.
        for await (const chunk of call as AsyncIterable<fleet.ArtifactChunk>) await handle.appendFile(chunk.data);
      } finally {
        signal.removeEventListener('abort', abort);
        await handle.close();
      }
    });
  }

  private async uploadOnce(attempt: fleet.AttemptRef, artifact: ArtifactRef, file: string, signal: AbortSignal): Promise<void> {
    let call: ClientWritableStream<fleet.PutArtifactRequest> | undefined;
    const settled = new AbortController();
    const answer = new Promise<void>((resolve, reject) => {
      call = this.options.client.putArtifact(this.options.metadata, (error) => {
        settled.abort();
        if (error === null) resolve();
        else reject(error);
      });
    });
    const stream = call as ClientWritableStream<fleet.PutArtifactRequest>;
    const abort = (): void => stream.cancel();
    signal.addEventListener('abort', abort, { once: true });
    // The answer decides: the server may have the bytes already and not read to the end.
    const sending = this.send(stream, attempt, artifact, file, settled.signal).catch((error: unknown) => {
      if (!settled.signal.aborted) stream.cancel();
      return error;
    });
    try {
      await answer;
    } finally {
      signal.removeEventListener('abort', abort);
      await sending;
    }
  }

  private async send(stream: ClientWritableStream<fleet.PutArtifactRequest>, attempt: fleet.AttemptRef, artifact: ArtifactRef, file: string, settled: AbortSignal): Promise<void> {
    stream.write({ part: { $case: 'header', value: { attempt, artifact } } });
    for await (const data of createReadStream(file, { highWaterMark: this.options.chunkBytes() }) as AsyncIterable<Buffer>) {
      if (settled.aborted) return;
      if (!stream.write({ part: { $case: 'data', value: data } })) await once(stream, 'drain', { signal: settled });
    }
    stream.end();
  }

  private async persist(what: string, signal: AbortSignal, run: () => Promise<void>): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (signal.aborted) throw new TunefleetError('cancelled', `${what} was abandoned`);
      try {
        return await run();
      } catch (error) {
        if (signal.aborted) throw new TunefleetError('cancelled', `${what} was abandoned`, { cause: error });
        const code = (error as { code?: unknown }).code;
        if (typeof code !== 'number') throw error;
        if (FINAL_CODES.has(code)) throw finalError(what, code, error);
        this.options.logger.warn({ err: error, attempt }, `${what} was cut, trying again`);
        await sleep(backoffDelayMs(this.options.backoff, attempt), signal);
      }
    }
  }
}

function finalError(what: string, code: number, cause: unknown): TunefleetError {
  const kind = code === status.FAILED_PRECONDITION ? 'lease_lost' : code === status.NOT_FOUND ? 'not_found' : code === status.INVALID_ARGUMENT ? 'invalid_input' : 'permission_denied';
  return new TunefleetError(kind, `${what}: ${errorMessage(cause)}`, { cause });
}

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ArtifactRef } from '@tunefleet/contracts';
import { orAborted, TunefleetError } from '@tunefleet/foundation';

/** Appends to the file what is missing of the artifact's bytes. */
export type FetchArtifact = (artifact: ArtifactRef, file: string, signal: AbortSignal) => Promise<void>;

/**
 * Artifacts on this worker's disk, by hash. A file is there only when its hash was checked. Least recently used ones go first when the
 * bound is passed; those that attempts hold are never removed.
 */
export class ArtifactCache {
  private readonly filesDir: string;
  private readonly partsDir: string;
  /** How often each is held. */
  private readonly held = new Map<string, number>();
  /** On their way. */
  private readonly arriving = new Map<string, Promise<unknown>>();

  constructor(
    dir: string,
    private readonly maxBytes: number,
  ) {
    this.filesDir = join(dir, 'files');
    this.partsDir = join(dir, 'parts');
  }

  /** Creates the folders. Partial downloads of an earlier life are kept: they are continued. */
  async open(): Promise<void> {
    await mkdir(this.filesDir, { recursive: true });
    await mkdir(this.partsDir, { recursive: true });
  }

  /**
   * The local file of an artifact, downloaded if need be: by whoever asks first, while others wait. Held until as many `release`s, also after a failure.
   * @throws incompatible_artifact when its hash is wrong, cancelled
   */
  async ensure(artifact: ArtifactRef, fetch: FetchArtifact, signal: AbortSignal): Promise<string> {
    const { sha256 } = artifact;
    this.held.set(sha256, (this.held.get(sha256) ?? 0) + 1);
    for (;;) {
      const arriving = this.arriving.get(sha256);
      if (arriving === undefined) break;
      await orAborted(arriving, signal, `download of ${artifact.name} was abandoned`);
    }
    const arrival = this.bring(artifact, fetch, signal);
    // Should it fail, whoever waits tries it with what it may use.
    const settled = arrival.then(noop, noop).then(() => this.arriving.delete(sha256));
    this.arriving.set(sha256, settled);
    return arrival;
  }

  private async bring(artifact: ArtifactRef, fetch: FetchArtifact, signal: AbortSignal): Promise<string> {
    const file = this.fileOf(artifact.sha256);
    if ((await sizeOf(file)) === artifact.bytes) {
      const now = new Date();
      await utimes(file, now, now);
      return file;
    }
    const part = join(this.partsDir, artifact.sha256);
    if (((await sizeOf(part)) ?? 0) > artifact.bytes) await rm(part, { force: true });
    await fetch(artifact, part, signal);
    const sha256 = await hashOf(part);
    if (sha256 !== artifact.sha256) {
      await rm(part, { force: true });
      throw new TunefleetError('incompatible_artifact', `artifact ${artifact.name} arrived with hash ${sha256} instead of ${artifact.sha256}`);
    }
    await rename(part, file);
    await this.evict();
    return file;
  }

  /** Takes in a file that is already here (an uploaded checkpoint), so that resuming on this worker needs no download. */
  async adopt(file: string, artifact: ArtifactRef): Promise<void> {
    await link(file, this.fileOf(artifact.sha256)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    await this.evict();
  }

  /** Lets go of what `ensure` was asked for, by hash. */
  release(sha256s: readonly string[]): void {
    for (const sha256 of sha256s) {
      const left = (this.held.get(sha256) ?? 0) - 1;
      if (left > 0) this.held.set(sha256, left);
      else this.held.delete(sha256);
    }
  }

  private async evict(): Promise<void> {
    const entries = await Promise.all(
      (await readdir(this.filesDir)).map(async (sha256) => ({ sha256, info: await stat(this.fileOf(sha256)).catch(() => null) })),
    );
    let total = entries.reduce((sum, entry) => sum + (entry.info?.size ?? 0), 0);
    const oldestFirst = entries.sort((a, b) => (a.info?.mtimeMs ?? 0) - (b.info?.mtimeMs ?? 0));
    for (const { sha256, info } of oldestFirst) {
      if (total <= this.maxBytes) return;
      if (this.held.has(sha256)) continue;
      await rm(this.fileOf(sha256), { force: true });
      total -= info?.size ?? 0;
    }
  }

  private fileOf(sha256: string): string {
    return join(this.filesDir, sha256);
  }
}

async function sizeOf(file: string): Promise<number | null> {
  return stat(file).then(
    (info) => info.size,
    () => null,
  );
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

function noop(): void {}

import { createHash } from 'node:crypto';
import type { ArtifactRef } from '@tunefleet/contracts';
import type { BlobInfo, BlobStore } from '@tunefleet/ports';

/** Which blobs are stored; their bytes do not matter. */
export class SimulatedBlobs implements Pick<BlobStore, 'put' | 'stat'> {
  private readonly stored = new Map<string, number>();
  /** Of the uploads, these meet a full disk. */
  full = 0;

  async put(source: AsyncIterable<Uint8Array>): Promise<BlobInfo> {
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const block of source) {
      hash.update(block);
      bytes += block.length;
    }
    const sha256 = hash.digest('hex');
    this.stored.set(sha256, bytes);
    return { sha256, bytes };
  }

  async stat(sha256: string): Promise<BlobInfo | null> {
    const bytes = this.stored.get(sha256);
    return bytes === undefined ? null : { sha256, bytes };
  }

  receive({ sha256, bytes }: ArtifactRef): void {
    this.stored.set(sha256, bytes);
  }
}

import type { BlobInfo } from './blob-store';

export interface StoredBlob extends BlobInfo {
  /** When it was put last, by the clock of the store; milliseconds. */
  readonly storedAtMs: number;
}

/** What a blob store offers for finding and removing what nobody needs. */
export interface BlobSweep {
  /** All blobs, in no order; ones put or removed meanwhile may be missed. */
  list(): AsyncIterable<StoredBlob>;
  /** Removes the blob unless it was put again since. A put at the same time wins. */
  removeUntouched(sha256: string, sinceMs: number): Promise<boolean>;
}

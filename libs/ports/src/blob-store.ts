import type { Readable } from 'node:stream';

export interface BlobInfo {
  readonly sha256: string;
  readonly bytes: number;
}

/** Immutable bytes under their SHA-256. Writing what is there already is cheap and changes nothing. */
export interface BlobStore {
  /**
   * Stores a stream; nothing is visible until all bytes are there.
   * @param expected checked when given. @throws invalid_input on a mismatch or beyond `maxBytes`
   */
  put(source: AsyncIterable<Uint8Array>, options: { maxBytes: number; expected?: Partial<BlobInfo> }): Promise<BlobInfo>;
  /** @throws not_found */
  open(sha256: string, range?: { offset: number; length?: number }): Promise<Readable>;
  stat(sha256: string): Promise<BlobInfo | null>;
  delete(sha256: string): Promise<void>;
  ping(): Promise<void>;
}

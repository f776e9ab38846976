import { createHash, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { invariant, TunefleetError } from '@tunefleet/foundation';

/** An adapter's values in host memory or in a file of their own, bit for bit the same. */
export class StoredValues implements Disposable {
  #values: Float32Array | null;
  #disposed = false;
  #last: Promise<void> = Promise.resolve();
  #file: { readonly path: string; readonly sha256: string } | null = null;

  constructor(
    values: Float32Array,
    private readonly folder: string,
  ) {
    this.#values = values;
  }

  get onHost(): boolean {
    return this.#values !== null;
  }

  read(): Float32Array {
    invariant(this.#values, 'values were asked for that are on disk');
    return this.#values;
  }

  toDisk(): Promise<void> {
    return this.#inTurn(async () => {
      const values = this.#values;
      if (!values) return;
      await mkdir(this.folder, { recursive: true });
      const path = join(this.folder, `${randomUUID()}.f32`);
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      this.#file = { path, sha256: hashOf(bytes) };
      try {
        await writeFile(path, bytes, { flag: 'wx' });
      } catch (error) {
        this.#removeFile();
        throw error;
      }
      this.#values = null;
      if (this.#disposed) this.#removeFile();
    });
  }

  /** @throws TunefleetError `incompatible_artifact`: the file is gone or was changed */
  toHost(): Promise<void> {
    return this.#inTurn(async () => {
      const file = this.#file;
      if (!file) return;
      const bytes = await readFile(file.path).catch((error: unknown) => {
        throw new TunefleetError('incompatible_artifact', `values that were put on disk cannot be read back from ${file.path}; load the adapter again`, { reason: 'bad_adapter', cause: error });
      });
      if (hashOf(bytes) !== file.sha256) throw new TunefleetError('incompatible_artifact', `${file.path} was changed since values were put there; load the adapter again`, { reason: 'bad_adapter' });
      this.#values = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
      this.#removeFile();
    });
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#removeFile();
  }

  #removeFile(): void {
    if (this.#file) rmSync(this.#file.path, { force: true });
    this.#file = null;
  }

  /** One after the other, whether the ones before failed or not. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

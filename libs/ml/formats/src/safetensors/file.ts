import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { basename } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { damaged, headerLength, parseHeader, type SafetensorsEntry, type SafetensorsHeader } from './header';

/** Largest single read; Node refuses 2 GiB and more. */
const READ_BYTES_MAX = 1 << 28;

/** Fills `target` from byte `position` of an open file. @throws when the file ends early */
export function readFully(descriptor: number, target: Uint8Array, position: number, file: string): void {
  let done = 0;
  while (done < target.length) {
    const read = readSync(descriptor, target, done, Math.min(READ_BYTES_MAX, target.length - done), position + done);
    if (read === 0) throw damaged(file, `ended at byte ${position + done} while ${target.length - done} more were expected`);
    done += read;
  }
}

/**
 * An open safetensors file. Only the header is in memory; tensors are read on demand by position, so several may be read in any order.
 * Close it with `using` or `close()`.
 */
export class SafetensorsFile implements Disposable {
  readonly #descriptor: number;
  readonly #header: SafetensorsHeader;
  readonly #name: string;
  #open = true;

  private constructor(descriptor: number, header: SafetensorsHeader, name: string) {
    this.#descriptor = descriptor;
    this.#header = header;
    this.#name = name;
  }

  /** @throws TunefleetError `incompatible_artifact` when the header is damaged; the system's error when the file cannot be opened */
  static open(path: string): SafetensorsFile {
    const name = basename(path);
    const descriptor = openSync(path, 'r');
    try {
      const status = fstatSync(descriptor);
      if (!status.isFile()) throw damaged(name, 'is not a regular file');
      const prefix = new Uint8Array(8);
      if (status.size >= 8) readFully(descriptor, prefix, 0, name);
      const json = new Uint8Array(headerLength(prefix, status.size, name));
      readFully(descriptor, json, 8, name);
      return new SafetensorsFile(descriptor, parseHeader(json, status.size, name), name);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }

  get metadata(): Readonly<Record<string, string>> {
    return this.#header.metadata;
  }

  get tensors(): ReadonlyMap<string, SafetensorsEntry> {
    return this.#header.tensors;
  }

  /** @throws TunefleetError `incompatible_artifact` naming the tensor when it is absent */
  entry(name: string): SafetensorsEntry {
    const entry = this.#header.tensors.get(name);
    if (entry === undefined) throw new TunefleetError('incompatible_artifact', `${this.#name} has no tensor "${name}"`, { reason: 'missing_tensor', details: { tensor: name } });
    return entry;
  }

  /** Row-major little-endian bytes in a new array, owned by the caller. */
  read(name: string): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.entry(name).byteLength);
    this.readInto(name, bytes);
    return bytes;
  }

  /** @param target exactly the tensor's byte length */
  readInto(name: string, target: Uint8Array): void {
    const entry = this.entry(name);
    if (!this.#open) throw new TunefleetError('invariant', `${this.#name} was read after it was closed`);
    if (target.length !== entry.byteLength) throw new TunefleetError('invariant', `tensor "${name}" has ${entry.byteLength} bytes, the target ${target.length}`);
    readFully(this.#descriptor, target, entry.offset, this.#name);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#descriptor);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

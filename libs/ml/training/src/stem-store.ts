import { randomUUID } from 'node:crypto';
import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { invariant } from '@tunefleet/foundation';

export type HostStates = Float32Array | Uint16Array;

/** Hidden states that are kept from one epoch to the next. */
export interface KeptStems {
  /** Blocks at the beginning that the run leaves alone, so that what they give depends on the input alone; a bypass needs none. */
  readonly untouchedBlocks: number;
  /** What is kept at most, in memory and on disk together. Another number gives the same mathematics but not the same bits. */
  readonly bytes: number;
  /** Of it in the host's memory. */
  readonly hostBytes: number;
  /** Where the rest goes; null: nowhere, so that all is in memory. */
  readonly directory: string | null;
}

/** Room for hidden states: memory, then disk. Whoever asks first gets it. */
export class StemStore implements Disposable {
  #left: number;
  #hostLeft: number;
  #file: { readonly descriptor: number; end: number } | null = null;

  constructor(private readonly kept: KeptStems) {
    this.#left = kept.bytes;
    this.#hostLeft = kept.hostBytes;
  }

  /** Sets room aside. @returns null when there is none */
  reserve(bytes: number): StemRoom | null {
    if (bytes > this.#left) return null;
    const onHost = bytes <= this.#hostLeft;
    if (!onHost && this.kept.directory === null) return null;
    this.#left -= bytes;
    if (onHost) this.#hostLeft -= bytes;
    return onHost ? new HostRoom() : new DiskRoom(this);
  }

  /** Appends to a file that is gone when the process is. @returns where */
  write(bytes: Uint8Array): number {
    const file = (this.#file ??= { descriptor: openUnlinked(this.kept.directory as string), end: 0 });
    const at = file.end;
    for (let done = 0; done < bytes.length; ) done += writeSync(file.descriptor, bytes, done, bytes.length - done, at + done);
    file.end += bytes.length;
    return at;
  }

  read(into: Uint8Array, at: number): void {
    invariant(this.#file, 'nothing was written');
    for (let done = 0; done < into.length; ) {
      const count = readSync(this.#file.descriptor, into, done, into.length - done, at + done);
      invariant(count > 0, `the file of hidden states ends before ${at + into.length}`);
      done += count;
    }
  }

  [Symbol.dispose](): void {
    if (this.#file) closeSync(this.#file.descriptor);
    this.#file = null;
  }
}

/** What was set aside for one pass' examples. */
export interface StemRoom {
  put(example: number, states: HostStates): void;
  has(example: number): boolean;
  /** Of an example that is there; borrowed. */
  get(example: number): HostStates;
}

class HostRoom implements StemRoom {
  readonly #states = new Map<number, HostStates>();

  put(example: number, states: HostStates): void {
    this.#states.set(example, states);
  }

  has(example: number): boolean {
    return this.#states.has(example);
  }

  get(example: number): HostStates {
    return this.#states.get(example) as HostStates;
  }
}

class DiskRoom implements StemRoom {
  readonly #places = new Map<number, { readonly at: number; readonly length: number; readonly wide: boolean }>();

  constructor(private readonly store: StemStore) {}

  put(example: number, states: HostStates): void {
    const at = this.store.write(new Uint8Array(states.buffer, states.byteOffset, states.byteLength));
    this.#places.set(example, { at, length: states.length, wide: states.BYTES_PER_ELEMENT === Float32Array.BYTES_PER_ELEMENT });
  }

  has(example: number): boolean {
    return this.#places.has(example);
  }

  get(example: number): HostStates {
    const { at, length, wide } = this.#places.get(example) as { at: number; length: number; wide: boolean };
    const states = wide ? new Float32Array(length) : new Uint16Array(length);
    this.store.read(new Uint8Array(states.buffer), at);
    return states;
  }
}

function openUnlinked(directory: string): number {
  const path = join(directory, `hidden-states-${randomUUID()}`);
  const descriptor = openSync(path, 'wx+');
  unlinkSync(path);
  return descriptor;
}

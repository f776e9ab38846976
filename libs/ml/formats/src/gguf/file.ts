import { closeSync, fstatSync, openSync } from 'node:fs';
import { basename } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { readFully } from '../safetensors/file';
import { GgufCursor } from './cursor';
import { blockFormat, dequantise } from './quantised';

const ENTRIES_MAX = 100_000;
const TENSORS_MAX = 1_000_000;
const ARRAY_LENGTH_MAX = 10_000_000;
const ARRAY_DEPTH_MAX = 4;

export type GgufValue = string | number | boolean | readonly GgufValue[];

export interface GgufTensor {
  /** GGML type number. */
  readonly type: number;
  /** Outermost dimension first: `[out, in]` for matrices (the file has them the other way round). */
  readonly shape: readonly number[];
  readonly offset: number;
  readonly byteLength: number;
}

/**
 * An open GGUF file (version 2 or 3, little-endian): metadata and tensor list in memory, tensor bytes read on demand.
 * @see https://github.com/ggml-org/ggml `docs/gguf.md`
 */
export class GgufFile implements Disposable {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  readonly #descriptor: number;
  readonly #name: string;
  #open = true;

  private constructor(descriptor: number, name: string, fileBytes: number) {
    this.#descriptor = descriptor;
    this.#name = name;
    const cursor = new GgufCursor(descriptor, fileBytes, name);
    const { entryCount, tensorCount } = readCounts(cursor, name);
    this.metadata = readMetadata(cursor, entryCount);
    this.tensors = readTensorList(cursor, tensorCount, this.metadata.get('general.alignment') ?? 32, fileBytes, name);
  }

  /** @throws TunefleetError `incompatible_artifact` when the file is not GGUF or lies about its contents */
  static open(path: string): GgufFile {
    const descriptor = openSync(path, 'r');
    try {
      const status = fstatSync(descriptor);
      if (!status.isFile()) throw damagedGguf(basename(path), 'is not a regular file');
      return new GgufFile(descriptor, basename(path), status.size);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }

  /** The tensor's stored bytes, in a new array. @throws TunefleetError `incompatible_artifact` when it is absent */
  read(name: string): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#tensor(name).byteLength);
    readFully(this.#descriptor, bytes, this.#tensor(name).offset, this.#name);
    return bytes;
  }

  /** The tensor unpacked to float32, row-major, in a new array. */
  readFloat32(name: string): Float32Array<ArrayBuffer> {
    return dequantise(this.#tensor(name).type, this.read(name), name);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#descriptor);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #tensor(name: string): GgufTensor {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw damagedGguf(this.#name, `has no tensor "${name}"`);
    return tensor;
  }
}

function readCounts(cursor: GgufCursor, name: string): { entryCount: number; tensorCount: number } {
  if (cursor.uint32() !== 0x46554747) throw damagedGguf(name, 'does not start with "GGUF"');
  const version = cursor.uint32();
  if (version !== 2 && version !== 3) throw damagedGguf(name, `has GGUF version ${version}; supported are 2 and 3, little-endian`);
  const tensorCount = cursor.size('tensor count', Math.min(TENSORS_MAX, cursor.remaining));
  const entryCount = cursor.size('metadata count', Math.min(ENTRIES_MAX, cursor.remaining));
  return { entryCount, tensorCount };
}

function readMetadata(cursor: GgufCursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let entry = 0; entry < count; entry++) {
    const key = cursor.string();
    metadata.set(key, readValue(cursor, cursor.uint32(), 0));
  }
  return metadata;
}

function readValue(cursor: GgufCursor, type: number, depth: number): GgufValue {
  if (type !== 9) return cursor.scalar(type);
  if (depth >= ARRAY_DEPTH_MAX) throw damagedGguf(cursor.file, `nests arrays deeper than ${ARRAY_DEPTH_MAX}`);
  const itemType = cursor.uint32();
  const length = cursor.size('array length', Math.min(ARRAY_LENGTH_MAX, cursor.remaining));
  const items: GgufValue[] = [];
  for (let index = 0; index < length; index++) items.push(readValue(cursor, itemType, depth + 1));
  return items;
}

function readTensorList(cursor: GgufCursor, count: number, alignment: GgufValue, fileBytes: number, file: string): Map<string, GgufTensor> {
  if (typeof alignment !== 'number' || !Number.isInteger(alignment) || alignment < 1 || alignment > 1 << 20) throw damagedGguf(file, `has alignment ${String(alignment)}`);
  const raw: { name: string; shape: number[]; type: number; offset: number }[] = [];
  for (let index = 0; index < count; index++) {
    const name = cursor.string();
    const dimensions = cursor.uint32();
    if (dimensions > 8) throw damagedGguf(file, `gives tensor "${name}" ${dimensions} dimensions`);
    const shape = Array.from({ length: dimensions }, () => cursor.size('dimension', 2 ** 32)).reverse();
    raw.push({ name, shape, type: cursor.uint32(), offset: cursor.size('tensor offset', fileBytes) });
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  for (const { name, shape, type, offset } of raw) {
    if (tensors.has(name)) throw damagedGguf(file, `names tensor "${name}" twice`);
    const format = blockFormat(type, name);
    const rowLength = shape.at(-1) ?? 1;
    const elements = shape.reduce((product, size) => product * size, 1);
    const byteLength = (elements / format.size) * format.bytes;
    if (rowLength % format.size !== 0 || !Number.isSafeInteger(byteLength)) throw damagedGguf(file, `gives tensor "${name}" shape [${shape.join(', ')}], not whole ${format.name} blocks of ${format.size}`);
    if (offset % alignment !== 0) throw damagedGguf(file, `puts tensor "${name}" at byte ${offset}, not a multiple of ${alignment}`);
    if (dataStart + offset + byteLength > fileBytes) throw damagedGguf(file, `ends before tensor "${name}" does; the download may be cut short`);
    tensors.set(name, { type, shape, offset: dataStart + offset, byteLength });
  }
  checkApart(tensors, file);
  return tensors;
}

/** Many tensors over the same bytes would make far more of a file than it holds. */
function checkApart(tensors: ReadonlyMap<string, GgufTensor>, file: string): void {
  let [end, previous] = [0, ''];
  for (const [name, { offset, byteLength }] of [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.byteLength - b.byteLength)) {
    if (offset < end) throw damagedGguf(file, `puts tensor "${name}" over the bytes of tensor "${previous}"`);
    [end, previous] = [offset + byteLength, name];
  }
}

export function damagedGguf(file: string, what: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `${file} ${what}`, { reason: 'damaged_gguf', details: { file } });
}

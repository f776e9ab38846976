import { TunefleetError } from '@tunefleet/foundation';
import { readFully } from '../safetensors/file';

const WINDOW_BYTES = 1 << 20;
const STRING_BYTES_MAX = 10_000_000;

/** Reads GGUF's little-endian values one after the other through a sliding window; every length is checked against the file before memory is taken. */
export class GgufCursor {
  readonly #descriptor: number;
  readonly #fileBytes: number;
  readonly file: string;
  #window = new DataView(new ArrayBuffer(0));
  #windowStart = 0;
  #position = 0;

  constructor(descriptor: number, fileBytes: number, file: string) {
    this.#descriptor = descriptor;
    this.#fileBytes = fileBytes;
    this.file = file;
  }

  /** Bytes read so far, from the start of the file. */
  get position(): number {
    return this.#position;
  }

  /** Bytes to the end of the file. */
  get remaining(): number {
    return this.#fileBytes - this.#position;
  }

  uint32(): number {
    return this.#take(4).getUint32(0, true);
  }

  /** A 64-bit count. @throws when it is above `limit` */
  size(what: string, limit: number): number {
    const value = this.#take(8).getBigUint64(0, true);
    if (value > BigInt(limit)) throw this.#damaged(`has a ${what} of ${value}; the limit is ${limit}`);
    return Number(value);
  }

  string(): string {
    const view = this.#take(this.size('string length', STRING_BYTES_MAX));
    return new TextDecoder().decode(view);
  }

  /** One value by GGUF type number; 64-bit integers beyond 2^53 lose precision. */
  scalar(type: number): string | number | boolean {
    switch (type) {
      case 0:
        return this.#take(1).getUint8(0);
      case 1:
        return this.#take(1).getInt8(0);
      case 2:
        return this.#take(2).getUint16(0, true);
      case 3:
        return this.#take(2).getInt16(0, true);
      case 4:
        return this.#take(4).getUint32(0, true);
      case 5:
        return this.#take(4).getInt32(0, true);
      case 6:
        return this.#take(4).getFloat32(0, true);
      case 7:
        return this.#take(1).getUint8(0) !== 0;
      case 8:
        return this.string();
      case 10:
        return Number(this.#take(8).getBigUint64(0, true));
      case 11:
        return Number(this.#take(8).getBigInt64(0, true));
      case 12:
        return this.#take(8).getFloat64(0, true);
      default:
        throw this.#damaged(`has a metadata value of type ${type}`);
    }
  }

  #take(bytes: number): DataView {
    if (bytes > this.#fileBytes - this.#position) throw this.#damaged(`ends at byte ${this.#fileBytes} inside its header`);
    if (this.#position + bytes > this.#windowStart + this.#window.byteLength) this.#slide(bytes);
    const view = new DataView(this.#window.buffer, this.#position - this.#windowStart, bytes);
    this.#position += bytes;
    return view;
  }

  #slide(bytes: number): void {
    const length = Math.min(Math.max(WINDOW_BYTES, bytes), this.#fileBytes - this.#position);
    const buffer = new Uint8Array(length);
    readFully(this.#descriptor, buffer, this.#position, this.file);
    this.#window = new DataView(buffer.buffer);
    this.#windowStart = this.#position;
  }

  #damaged(what: string): TunefleetError {
    return new TunefleetError('incompatible_artifact', `${this.file} ${what}`, { reason: 'damaged_gguf', details: { file: this.file } });
  }
}

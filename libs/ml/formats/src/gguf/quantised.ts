/**
 * GGML block formats -> float32. Blocks hold 32 (or 256) consecutive weights of a row.
 * @see https://github.com/ggml-org/ggml `src/ggml-quants.c`, functions `dequantize_row_*`
 */
import { TunefleetError } from '@tunefleet/foundation';
import { f16ToF32 } from '../numeric/half';

interface BlockFormat {
  readonly name: string;
  /** Weights per block. */
  readonly size: number;
  readonly bytes: number;
  /** Unpacks `count` blocks of `source` into `target`. */
  readonly unpack: (source: DataView, count: number, target: Float32Array) => void;
}

/** By GGML type number. */
const FORMATS: Readonly<Record<number, BlockFormat>> = {
  0: { name: 'F32', size: 1, bytes: 4, unpack: (source, count, target) => each(count, (i) => (target[i] = source.getFloat32(i * 4, true))) },
  1: { name: 'F16', size: 1, bytes: 2, unpack: (source, count, target) => each(count, (i) => (target[i] = f16ToF32(source.getUint16(i * 2, true)))) },
  2: { name: 'Q4_0', size: 32, bytes: 18, unpack: unpackQ4v0 },
  3: { name: 'Q4_1', size: 32, bytes: 20, unpack: unpackQ4v1 },
  8: { name: 'Q8_0', size: 32, bytes: 34, unpack: unpackQ8v0 },
  14: { name: 'Q6_K', size: 256, bytes: 210, unpack: unpackQ6K },
  30: { name: 'BF16', size: 1, bytes: 2, unpack: unpackBf16 },
};

/** @throws TunefleetError `incompatible_artifact` for a format we cannot unpack */
export function blockFormat(type: number, tensor: string): BlockFormat {
  const format = FORMATS[type];
  if (format === undefined) {
    const known = Object.values(FORMATS).map(({ name }) => name);
    throw new TunefleetError('incompatible_artifact', `tensor "${tensor}" is stored in GGML type ${type}; supported are ${known.join(', ')}`, { reason: 'unsupported_quantisation' });
  }
  return format;
}

/**
 * @param bytes whole blocks, borrowed
 * @returns a new float32 array of all weights; products and sums are rounded to float32 in the reference's order
 */
export function dequantise(type: number, bytes: Uint8Array, tensor = 'tensor'): Float32Array<ArrayBuffer> {
  const format = blockFormat(type, tensor);
  if (bytes.length % format.bytes !== 0) throw new TunefleetError('invariant', `${bytes.length} bytes are not whole ${format.name} blocks of ${format.bytes}`);
  const count = bytes.length / format.bytes;
  const target = new Float32Array(count * format.size);
  format.unpack(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), count, target);
  return target;
}

function each(count: number, visit: (index: number) => void): void {
  for (let index = 0; index < count; index++) visit(index);
}

/** f16 scale d; 16 bytes: low nibbles are weights 0..15, high nibbles 16..31. w = (q - 8) d */
function unpackQ4v0(source: DataView, count: number, target: Float32Array): void {
  for (let block = 0; block < count; block++) {
    const at = block * 18;
    const d = f16ToF32(source.getUint16(at, true));
    for (let i = 0; i < 16; i++) {
      const pair = source.getUint8(at + 2 + i);
      target[block * 32 + i] = ((pair & 15) - 8) * d;
      target[block * 32 + 16 + i] = ((pair >> 4) - 8) * d;
    }
  }
}

/** f16 scale d, f16 minimum m, nibbles as Q4_0. w = q d + m */
function unpackQ4v1(source: DataView, count: number, target: Float32Array): void {
  for (let block = 0; block < count; block++) {
    const at = block * 20;
    const d = f16ToF32(source.getUint16(at, true));
    const m = f16ToF32(source.getUint16(at + 2, true));
    for (let i = 0; i < 16; i++) {
      const pair = source.getUint8(at + 4 + i);
      target[block * 32 + i] = Math.fround((pair & 15) * d) + m;
      target[block * 32 + 16 + i] = Math.fround((pair >> 4) * d) + m;
    }
  }
}

/** f16 scale d, 32 signed bytes. w = q d */
function unpackQ8v0(source: DataView, count: number, target: Float32Array): void {
  for (let block = 0; block < count; block++) {
    const at = block * 34;
    const d = f16ToF32(source.getUint16(at, true));
    for (let i = 0; i < 32; i++) target[block * 32 + i] = source.getInt8(at + 2 + i) * d;
  }
}

/** 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, f16 d. Six-bit q in two halves of 128. w = d s (q - 32) */
function unpackQ6K(source: DataView, count: number, target: Float32Array): void {
  for (let block = 0; block < count; block++) {
    const at = block * 210;
    const d = f16ToF32(source.getUint16(at + 208, true));
    for (let half = 0; half < 2; half++) {
      for (let i = 0; i < 128; i++) {
        const quarter = i >> 5;
        const lane = i & 31;
        const low = source.getUint8(at + half * 64 + (quarter & 1) * 32 + lane);
        const nibble = quarter < 2 ? low & 15 : low >> 4;
        const high = (source.getUint8(at + 128 + half * 32 + lane) >> (2 * quarter)) & 3;
        const scale = source.getInt8(at + 192 + half * 8 + (i >> 4));
        target[block * 256 + half * 128 + i] = Math.fround(d * scale) * ((nibble | (high << 4)) - 32);
      }
    }
  }
}

function unpackBf16(source: DataView, count: number, target: Float32Array): void {
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let index = 0; index < count; index++) bits[index] = source.getUint16(index * 2, true) << 16;
}

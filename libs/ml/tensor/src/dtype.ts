import { assertNever } from '@tunefleet/foundation';

/** Element types of device tensors. `bf16` exists on the tensorflow backend only; on wasm `u8` can be uploaded and cast, no more. */
export type DType = 'f32' | 'bf16' | 'i32' | 'u8' | 'bool';
/** Dtypes a model may compute in. */
export type FloatDType = 'f32' | 'bf16';

/** Host form of a tensor: bf16 travels as its raw 16 bits. */
export type HostArray = Float32Array | Uint16Array | Int32Array | Uint8Array;

export interface HostArrayOf {
  readonly f32: Float32Array;
  readonly bf16: Uint16Array;
  readonly i32: Int32Array;
  readonly u8: Uint8Array;
  readonly bool: Uint8Array;
}

export function bytesPerElement(dtype: DType): number {
  switch (dtype) {
    case 'f32':
    case 'i32':
      return 4;
    case 'bf16':
      return 2;
    case 'u8':
    case 'bool':
      return 1;
    default:
      return assertNever(dtype, 'dtype');
  }
}

export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === 'f32' || dtype === 'bf16';
}

export type Shape = readonly number[];

export function elementCount(shape: Shape): number {
  let count = 1;
  for (const size of shape) count *= size;
  return count;
}

/** Widens raw bf16 bits to float32; exact. */
export function bf16ToF32(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] ?? 0) << 16;
  return new Float32Array(words.buffer);
}

/** Rounds float32 to bf16 bits, to nearest with ties to even; NaN stays NaN. */
export function f32ToBf16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? 0;
    const isNan = (word & 0x7fffffff) > 0x7f800000;
    bits[i] = isNan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}

/** Conversions between float32 and the two 16-bit float formats, as bit patterns in `Uint16Array`s. Round to nearest, ties to even. */

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** bfloat16 -> float32, exact. */
export function bf16ToF32(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0] as number;
}

/** float32 -> bfloat16; NaN stays NaN (quiet), overflow becomes infinity. */
export function f32ToBf16(value: number): number {
  scratchFloat[0] = value;
  return roundBitsToBf16(scratchBits[0] as number);
}

function roundBitsToBf16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** @param source borrowed @returns a new array of bfloat16 bit patterns */
export function f32ArrayToBf16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const out = new Uint16Array(source.length);
  for (let index = 0; index < bits.length; index++) out[index] = roundBitsToBf16(bits[index] as number);
  return out;
}

/** @param source bfloat16 bit patterns, borrowed @returns a new float32 array, exact */
export function bf16ArrayToF32(source: Uint16Array): Float32Array {
  const out = new Float32Array(source.length);
  const bits = new Uint32Array(out.buffer);
  for (let index = 0; index < source.length; index++) bits[index] = (source[index] as number) << 16;
  return out;
}

/** IEEE binary16 -> float32, exact. */
export function f16ToF32(bits: number): number {
  return halfTable()[bits & 0xffff] as number;
}

let table: Float32Array | undefined;

/** All 65,536 binary16 values; 256 KB, built on first use: block formats look up one or two per 32 weights. */
function halfTable(): Float32Array {
  if (table !== undefined) return table;
  table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >>> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[bits] = fraction === 0 ? sign * Infinity : NaN;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}

/** float32 -> IEEE binary16; overflow becomes infinity. */
export function f32ToF16(value: number): number {
  scratchFloat[0] = value;
  const bits = scratchBits[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // >= 65520 rounds to infinity
  if (magnitude < 0x38800000) {
    // Subnormal result: a multiple of 2^-24; the scaling is exact and Math.round is corrected to ties-to-even.
    const scaled = Math.abs(scratchFloat[0] as number) * 2 ** 24;
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/**
 * Weights in 4 bits, as bitsandbytes stores them: blocks of 64 with one scale each, two codes per byte.
 * @see Dettmers et al. 2023, arXiv:2305.14314; bitsandbytes 0.50, backends/default/ops.py
 */

export type FourBitType = 'nf4' | 'fp4';

/** Weights that share a scale. */
export const FOUR_BIT_BLOCK = 64;

/** What each code stands for, times the scale of its block. */
export const FOUR_BIT_CODES: Readonly<Record<FourBitType, Float32Array>> = {
  // Quantiles of the normal distribution: section 3 of the paper.
  nf4: Float32Array.of(
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ),
  // One sign bit, two of exponent, one of mantissa, as twelfths of the greatest.
  fp4: Float32Array.from([0, 0.0625, 8, 12, 4, 6, 2, 3, -0, -0.0625, -8, -12, -4, -6, -2, -3], (value) => value / 12),
};

export interface FourBitValues {
  /** ceil(n / 2) bytes, the earlier of two codes in the high half; a last half without a weight is what zero is coded as. */
  readonly packed: Uint8Array;
  /** Greatest magnitude of every block, ceil(n / 64). */
  readonly scales: Float32Array;
}

/** A value midway between two codes goes to the lower one. @param values row-major, finite */
export function quantiseFourBit(values: Float32Array, type: FourBitType): FourBitValues {
  const { order, midpoints } = searchOf(FOUR_BIT_CODES[type]);
  const blocks = Math.ceil(values.length / FOUR_BIT_BLOCK);
  const scales = new Float32Array(blocks);
  const packed = new Uint8Array(Math.ceil(values.length / 2));
  const factor = new Float32Array(1);
  const scaled = new Float32Array(1);
  for (let block = 0; block < blocks; block++) {
    const start = block * FOUR_BIT_BLOCK;
    const end = Math.min(start + FOUR_BIT_BLOCK, values.length);
    let greatest = 0;
    for (let i = start; i < end; i++) greatest = Math.max(greatest, Math.abs(values[i] as number));
    scales[block] = greatest;
    // Full blocks are multiplied by the reciprocal, a short last one is divided: the quotients may differ in the last bit.
    const divisor = Math.fround(Math.max(greatest, 1e-38));
    factor[0] = 1 / divisor;
    const full = end - start === FOUR_BIT_BLOCK;
    for (let i = start; i < end; i++) {
      scaled[0] = full ? (values[i] as number) * (factor[0] as number) : (values[i] as number) / divisor;
      const code = order[countBelow(midpoints, scaled[0] as number)] as number;
      const at = i >> 1;
      packed[at] = (packed[at] as number) | (i & 1 ? code : code << 4);
    }
  }
  if (values.length % 2 === 1) {
    const last = packed.length - 1;
    packed[last] = (packed[last] as number) | (order[countBelow(midpoints, 0)] as number);
  }
  return { packed, scales };
}

/** @param count weights, of which `packed` holds two per byte   @returns code times scale, in f32 */
export function dequantiseFourBit({ packed, scales }: FourBitValues, codes: Float32Array, count: number, blockSize = FOUR_BIT_BLOCK): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const byte = packed[i >> 1] as number;
    values[i] = (codes[i & 1 ? byte & 15 : byte >> 4] as number) * (scales[Math.floor(i / blockSize)] as number);
  }
  return values;
}

/** What the two codes of every byte stand for, [256, 2]: dequantising is a look-up. */
export function bytePairs(codes: Float32Array): Float32Array {
  return Float32Array.from({ length: 512 }, (_, i) => codes[i & 1 ? (i >> 1) & 15 : i >> 5] as number);
}

/** Codes from low to high, and the f32 midpoints of neighbours. */
export function searchOf(codes: Float32Array): { readonly order: Uint8Array; readonly midpoints: Float32Array } {
  const order = Uint8Array.from([...codes.keys()].sort((a, b) => (codes[a] as number) - (codes[b] as number) || a - b));
  const sorted = Float32Array.from(order, (code) => codes[code] as number);
  return { order, midpoints: Float32Array.from(sorted.subarray(1), (value, i) => Math.fround(value + (sorted[i] as number)) / 2) };
}

/** How many of the ascending numbers lie strictly below `value`. */
export function countBelow(ascending: Float32Array, value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Scales of 4-bit blocks in 8 bits: double quantisation. @see Dettmers et al. 2023, arXiv:2305.14314, section 3; 2022, arXiv:2110.02861 (the map) */
import { countBelow, searchOf } from './four-bit';

/** Scales that share a maximum. */
export const EIGHT_BIT_BLOCK = 256;

/** The signed dynamic map: seven decades of ever more steps, 0 and 1; ascending. */
export const DYNAMIC_MAP: Float32Array = dynamicMap();

export interface EightBitScales {
  readonly codes: Uint8Array;
  /** Greatest magnitude of every block of 256, after the offset was taken off. */
  readonly maxima: Float32Array;
  /** Mean of all scales, f32. */
  readonly offset: number;
}

export function quantiseScales(scales: Float32Array): EightBitScales {
  const { midpoints } = searchOf(DYNAMIC_MAP);
  const offset = Math.fround(scales.reduce((sum, scale) => sum + scale, 0) / scales.length);
  const codes = new Uint8Array(scales.length);
  const maxima = new Float32Array(Math.ceil(scales.length / EIGHT_BIT_BLOCK));
  for (let block = 0; block < maxima.length; block++) {
    const start = block * EIGHT_BIT_BLOCK;
    const centred = scales.subarray(start, start + EIGHT_BIT_BLOCK).map((scale) => scale - offset);
    const greatest = centred.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    maxima[block] = greatest;
    const factor = Math.fround(1 / Math.max(greatest, 1e-38));
    centred.forEach((value, i) => (codes[start + i] = countBelow(midpoints, Math.fround(value * factor))));
  }
  return { codes, maxima, offset };
}

/** @returns map times maximum, plus offset, each rounded to f32 */
export function dequantiseScales({ codes, maxima, offset }: EightBitScales, map: Float32Array = DYNAMIC_MAP, blockSize = EIGHT_BIT_BLOCK): Float32Array {
  return Float32Array.from(codes, (code, i) => Math.fround((map[code] as number) * (maxima[Math.floor(i / blockSize)] as number)) + offset);
}

function dynamicMap(): Float32Array {
  const values = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const steps = 2 ** decade;
    const edges = Float32Array.from({ length: steps + 1 }, (_, i) => evenly(i, steps));
    for (let i = 0; i < steps; i++) {
      const mean = Math.fround(Math.fround((edges[i] as number) + (edges[i + 1] as number)) / 2);
      const value = Math.fround(mean * Math.fround(10 ** (decade - 6)));
      values.push(value, -value);
    }
  }
  return Float32Array.from(values).sort();
}

/** 0.1 to 1 in equal steps as PyTorch rounds them: f32 with fused multiply and add, counted from the nearer end. */
function evenly(index: number, steps: number): number {
  const start = Math.fround(0.1);
  const step = Math.fround(Math.fround(1 - start) / steps);
  return Math.fround(index < (steps + 1) / 2 ? start + step * index : 1 - step * (steps - index));
}

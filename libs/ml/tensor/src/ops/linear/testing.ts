import type { Device } from '../../device';
import type { BlockScales, QuantisedWeights } from './quantised-weights';

const CODES = Float32Array.from({ length: 16 }, (_, code) => Math.sin(code * 1.7));
const MAP = Float32Array.from({ length: 256 }, (_, code) => (code - 127) / 129);
export const noise = (i: number, seed: number): number => Math.abs(Math.sin(i * 12.9898 + seed * 78.233) * 43758.5453) % 1;

export interface QuantisedCase {
  readonly weights: QuantisedWeights;
  /** [out, in] row-major. */
  readonly dense: Float32Array;
}

/** Arbitrary 4-bit weights. @param double whether their scales are quantised, too */
export function quantisedCase(device: Device, outSize: number, inSize: number, double: boolean, blockSize = 64, seed = outSize): QuantisedCase {
  const count = outSize * inSize;
  const blocks = Math.ceil(count / blockSize);
  const packed = Uint8Array.from({ length: Math.ceil(count / 2) }, (_, i) => Math.floor(noise(i, seed) * 256));
  packed[0] = 255;
  const plain = Float32Array.from({ length: blocks }, (_, i) => 0.1 + noise(i, 3));
  const codes = Uint8Array.from({ length: blocks }, (_, i) => Math.floor(noise(i, 5) * 256));
  const maxima = Float32Array.from({ length: Math.ceil(blocks / 4) }, (_, i) => 0.2 + noise(i, 7));
  const offset = Math.fround(0.31 + (seed % 5) / 50);
  const factors = double ? Float32Array.from(codes, (code, i) => Math.fround((MAP[code] as number) * (maxima[i >> 2] as number)) + offset) : plain;
  const dense = Float32Array.from({ length: count }, (_, i) => {
    const byte = packed[i >> 1] as number;
    return (CODES[i & 1 ? byte & 15 : byte >> 4] as number) * (factors[Math.floor(i / blockSize)] as number);
  });
  const table = Float32Array.from({ length: 512 }, (_, i) => CODES[i & 1 ? (i >> 1) & 15 : i >> 5] as number);
  const scales: BlockScales = double
    ? { codes: device.tensor(codes.slice(), [blocks], 'u8'), map: device.tensor(MAP.slice(), [256], 'f32'), maxima: device.tensor(maxima.slice(), [maxima.length], 'f32'), offset, blockSize: 4 }
    : { values: device.tensor(plain.slice(), [blocks], 'f32') };
  return { dense, weights: { packed: device.tensor(packed.slice(), [packed.length], 'u8'), table: device.tensor(table, [256, 2], 'f32'), scales, blockSize, outSize, inSize } };
}

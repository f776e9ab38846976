/** Against bitsandbytes (tools/golden/four_bit_fixture.py), the published test vector, and what any quantiser must keep. */
import { join } from 'node:path';
import fc from 'fast-check';
import { SafetensorsFile } from '../safetensors';
import { dequantiseScales, DYNAMIC_MAP, EIGHT_BIT_BLOCK, quantiseScales } from './eight-bit';
import { bytePairs, dequantiseFourBit, FOUR_BIT_BLOCK, FOUR_BIT_CODES, quantiseFourBit, searchOf, type FourBitType } from './four-bit';

const TYPES: readonly FourBitType[] = ['nf4', 'fp4'];
const golden = new Map<string, Uint8Array>();
beforeAll(() => {
  using file = SafetensorsFile.open(join(import.meta.dirname, '../../fixtures/four-bit.safetensors'));
  for (const name of file.tensors.keys()) golden.set(name, file.read(name).slice());
});
const bytes = (name: string): Uint8Array => golden.get(name) as Uint8Array;
const floats = (name: string): Float32Array => new Float32Array(bytes(name).buffer);

test('64 values of a sine', () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => 0.8 * Math.sin(0.37 * i));
  const { packed, scales } = quantiseFourBit(values, 'nf4');
  expect(Buffer.from(packed).toString('hex')).toBe('7befffed9521000137befffed9521000137befffed9521000137befffed95210');
  expect(scales[0]).toBeCloseTo(0.798021, 6);
  const back = dequantiseFourBit({ packed, scales }, FOUR_BIT_CODES.nf4, 64);
  expect(Math.sqrt(back.reduce((sum, value, i) => sum + (value - (values[i] as number)) ** 2, 0) / 64)).toBeCloseTo(0.042993, 6);
});

describe.each(['normal', 'short', 'edges'])('the matrix "%s" as bitsandbytes quantises it', (name) => {
  test.each(TYPES)('%s', (type) => {
    const values = floats(name);
    const quantised = quantiseFourBit(values, type);
    expect(quantised.scales).toEqual(floats(`${name}.${type}.absmax`));
    expect(quantised.packed).toEqual(bytes(`${name}.${type}.packed`));
    const weights = golden.get(`${name}.${type}.weights`);
    if (weights) expect(maxDifference(dequantiseFourBit(quantised, FOUR_BIT_CODES[type], values.length), new Float32Array(weights.buffer))).toBe(0);

    const scales = quantiseScales(quantised.scales);
    const [offset] = floats(`${name}.${type}.double.offset`) as unknown as [number];
    // The mean is summed in another order: its last bit may differ.
    expect(Math.abs(scales.offset - offset) / offset).toBeLessThan(2e-7);
    // The CPU's search of bitsandbytes misses the exact zero of the map by some of its smallest steps.
    const meant = (codes: Uint8Array) => Float32Array.from(codes, (code) => DYNAMIC_MAP[code] as number);
    expect(maxDifference(meant(scales.codes), meant(bytes(`${name}.${type}.double.absmax`)))).toBeLessThan(name === 'edges' ? 5e-5 : 1e-30);
    expect(maxDifference(scales.maxima, floats(`${name}.${type}.double.nested_absmax`))).toBeLessThan(1e-6);
  });

  test('doubly quantised weights, from the stored parts', () => {
    const scales = dequantiseScales({ codes: bytes(`${name}.nf4.double.absmax`), maxima: floats(`${name}.nf4.double.nested_absmax`), offset: floats(`${name}.nf4.double.offset`)[0] as number });
    const weights = dequantiseFourBit({ packed: bytes(`${name}.nf4.packed`), scales }, FOUR_BIT_CODES.nf4, floats(name).length);
    expect(maxDifference(weights, floats(`${name}.nf4.double.weights`))).toBe(0);
  });
});

test('the map of scales is that of bitsandbytes', () => {
  expect(DYNAMIC_MAP).toEqual(floats('dynamic_map'));
  expect(new Set(DYNAMIC_MAP).size).toBe(256);
});

test.each(TYPES)('%s: every value becomes the code nearest to it, the lower one of two; quantising again changes nothing', (type) => {
  const codes = FOUR_BIT_CODES[type];
  const { order, midpoints } = searchOf(codes);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -100_000, max: 100_000 }), { minLength: 1, maxLength: 200 }), (integers) => {
      const values = Float32Array.from(integers, (integer) => integer / 1000);
      const quantised = quantiseFourBit(values, type);
      const back = dequantiseFourBit(quantised, codes, values.length);
      back.forEach((value, i) => {
        const scale = quantised.scales[Math.floor(i / FOUR_BIT_BLOCK)] as number;
        const nearest = codes.reduce((least, code) => Math.min(least, Math.abs(code * scale - (values[i] as number))), Infinity);
        expect(Math.abs(value - (values[i] as number))).toBeLessThanOrEqual(nearest + scale * 1e-6);
      });
      expect(maxDifference(dequantiseFourBit(quantiseFourBit(back, type), codes, values.length), back)).toBe(0);
    }),
    { numRuns: 60 },
  );
  const onMidpoints = Float32Array.from([...midpoints, 1]);
  const { packed } = quantiseFourBit(Float32Array.from([...onMidpoints, ...new Float32Array(48)]), type);
  const chosen = [...midpoints.keys()].map((i) => ((packed[i >> 1] as number) >> (i & 1 ? 0 : 4)) & 15);
  expect(chosen).toEqual([...order.subarray(0, 15)]);
});

test('what double quantisation loses is below the step of its map; the table of bytes says what its two codes mean', () => {
  const scales = Float32Array.from({ length: 2 * EIGHT_BIT_BLOCK + 7 }, (_, i) => 0.03 + 0.02 * Math.sin(i));
  const back = dequantiseScales(quantiseScales(scales));
  expect(maxDifference(back, scales)).toBeLessThan(0.02 * 0.0075);
  const pairs = bytePairs(FOUR_BIT_CODES.nf4);
  expect([pairs[2 * 0x7b], pairs[2 * 0x7b + 1]]).toEqual([FOUR_BIT_CODES.nf4[7], FOUR_BIT_CODES.nf4[11]]);
});

function maxDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))), 0);
}

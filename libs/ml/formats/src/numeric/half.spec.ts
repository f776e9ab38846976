import fc from 'fast-check';
import { bf16ArrayToF32, bf16ToF32, f16ToF32, f32ArrayToBf16, f32ToBf16, f32ToF16 } from './half';

describe('16-bit floats', () => {
  it('keeps every binary16 value through float32', () => {
    let kept = 0;
    for (let bits = 0; bits < 65536; bits++) {
      const value = f16ToF32(bits);
      if (Number.isNaN(value)) expect(f32ToF16(value) & 0x7c00).toBe(0x7c00);
      else if (f32ToF16(value) === bits) kept += 1;
    }
    expect(kept).toBe(65536 - 2 * 1023);
  });

  it('rounds to the nearest value, ties to even', () => {
    expect(f32ToBf16(1 + 2 ** -8)).toBe(0x3f80); // tie, even below
    expect(f32ToBf16(1 + 3 * 2 ** -8)).toBe(0x3f82); // tie, even above
    expect(f32ToF16(1 + 2 ** -11)).toBe(0x3c00);
    expect(f32ToF16(65519)).toBe(0x7bff);
    expect(f32ToF16(65520)).toBe(0x7c00);
    expect(f32ToF16(2 ** -25)).toBe(0);
    expect(f32ToF16(1.5 * 2 ** -24)).toBe(2);
    expect(f32ToBf16(NaN) & 0x7fff).toBeGreaterThan(0x7f80);
    expect(bf16ToF32(f32ToBf16(-Infinity))).toBe(-Infinity);
  });

  it('agrees between the scalar and the array form', () => {
    fc.assert(
      fc.property(fc.float32Array({ noNaN: true }), (values) => {
        const packed = f32ArrayToBf16(values);
        expect([...packed]).toEqual([...values].map(f32ToBf16));
        expect([...bf16ArrayToF32(packed)]).toEqual([...packed].map(bf16ToF32));
      }),
    );
  });
});

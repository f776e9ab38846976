import { f32ToF16 } from '../numeric/half';

/** GGML type numbers that are written. */
export const GGML_TYPES = { F32: 0, F16: 1, Q8_0: 8 } as const;
export type GgmlTypeName = keyof typeof GGML_TYPES;

/** Weights per block and bytes per block. */
const BLOCKS: Readonly<Record<GgmlTypeName, readonly [size: number, bytes: number]>> = { F32: [1, 4], F16: [1, 2], Q8_0: [32, 34] };

export function ggmlByteLength(type: GgmlTypeName, shape: readonly number[]): number {
  const [size, bytes] = BLOCKS[type];
  return (shape.reduce((product, length) => product * length, 1) / size) * bytes;
}

/** Whether rows of this length are whole blocks. */
export function fitsBlocks(type: GgmlTypeName, rowLength: number): boolean {
  return rowLength % BLOCKS[type][0] === 0;
}

/** @param values whole blocks, borrowed   @returns the stored bytes; the same as of ggml's `quantize_row_*_ref` */
export function quantise(type: GgmlTypeName, values: Float32Array): Uint8Array {
  switch (type) {
    case 'F32':
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case 'F16':
      return new Uint8Array(Uint16Array.from(values, f32ToF16).buffer);
    case 'Q8_0':
      return packQ8v0(values);
  }
}

/** Per 32 weights a f16 scale d = max |w| / 127 and 32 signed bytes w / d, halves rounded away from zero. All products in f32. */
function packQ8v0(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / 32) * 34);
  const view = new DataView(out.buffer);
  for (let block = 0; block * 32 < values.length; block++) {
    let most = 0;
    for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(values[block * 32 + i] as number));
    const d = Math.fround(most / 127);
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    view.setUint16(block * 34, f32ToF16(d), true);
    for (let i = 0; i < 32; i++) {
      const scaled = Math.fround((values[block * 32 + i] as number) * inverse);
      view.setInt8(block * 34 + 2 + i, Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5));
    }
  }
  return out;
}

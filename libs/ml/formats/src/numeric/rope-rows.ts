/**
 * Reorders the rows of a query or key projection from interleaved RoPE (pairs 2j, 2j+1 rotate together: llama2.c, GGUF)
 * to half rotation (pairs j, j + D/2: Hugging Face). Within each head, row `s D/2 + j` comes from row `2j + s`, s in {0, 1}.
 * @param rows [heads * D, C] row-major, borrowed
 * @returns a new array of the same shape
 */
export function interleavedToHalfRows(rows: Float32Array, heads: number, headDim: number): Float32Array<ArrayBuffer> {
  const width = rows.length / (heads * headDim);
  const half = headDim / 2;
  const out = new Float32Array(rows.length);
  for (let head = 0; head < heads; head++) {
    for (let pair = 0; pair < half; pair++) {
      for (let side = 0; side < 2; side++) {
        const from = (head * headDim + pair * 2 + side) * width;
        out.set(rows.subarray(from, from + width), (head * headDim + side * half + pair) * width);
      }
    }
  }
  return out;
}

/** The inverse: from half rotation to interleaved. @param rows [heads * D, C] row-major, borrowed   @returns a new array of the same shape */
export function halfToInterleavedRows(rows: Float32Array, heads: number, headDim: number): Float32Array<ArrayBuffer> {
  const width = rows.length / (heads * headDim);
  const half = headDim / 2;
  const out = new Float32Array(rows.length);
  for (let head = 0; head < heads; head++) {
    for (let pair = 0; pair < half; pair++) {
      for (let side = 0; side < 2; side++) {
        const from = (head * headDim + side * half + pair) * width;
        out.set(rows.subarray(from, from + width), (head * headDim + pair * 2 + side) * width);
      }
    }
  }
  return out;
}

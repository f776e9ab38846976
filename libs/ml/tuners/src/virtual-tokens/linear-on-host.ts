/**
 * x Wᵀ + b in double precision, rounded once.
 * @param x [rows, in]   @param weight [out, in]   @param bias [out]
 * @returns [rows, out]
 */
export function linearOnHost(x: Float32Array, weight: Float32Array, bias: Float32Array): Float32Array {
  const outSize = bias.length;
  const inSize = weight.length / outSize;
  const rows = x.length / inSize;
  const y = new Float32Array(rows * outSize);
  // Weights, the largest by far, are read once.
  for (let out = 0; out < outSize; out++) {
    for (let row = 0; row < rows; row++) {
      let sum = bias[out] as number;
      for (let i = 0, w = out * inSize, at = row * inSize; i < inSize; i++) sum += (x[at + i] as number) * (weight[w + i] as number);
      y[row * outSize + out] = sum;
    }
  }
  return y;
}

/** Singular value decomposition of a product B A that is never formed: both factors are made orthonormal, what is left is [R, R]. All in f64. */

export interface LowRankFactorPair {
  /** [R, in] */
  readonly a: Float32Array;
  /** [out, R] */
  readonly b: Float32Array;
}

/** The best approximation of rank `rank`: b = U S [out, rank], a = Vᵀ [rank, in]. Ranks above the product's give zeros. */
export function truncatedProduct({ a, b }: LowRankFactorPair, given: number, rank: number): LowRankFactorPair {
  const [inSize, outSize] = [a.length / given, b.length / given];
  const columnsOf = (value: (row: number, column: number) => number, rows: number) => Array.from({ length: given }, (_, column) => Float64Array.from({ length: rows }, (_row, row) => value(row, column)));
  const left = orthonormalised(columnsOf((row, column) => b[row * given + column] as number, outSize));
  const right = orthonormalised(columnsOf((row, column) => a[column * inSize + row] as number, inSize));
  // Rb Raᵀ: columns indexed by the right side.
  const core = Array.from({ length: given }, (_, j) => Float64Array.from({ length: given }, (_row, i) => dotOf(given, (k) => at(left.upper, i, k) * at(right.upper, j, k))));
  const { left: scaled, right: rotation, order } = jacobi(core);
  const outB = new Float32Array(outSize * rank);
  const outA = new Float32Array(rank * inSize);
  order.slice(0, rank).forEach((source, target) => {
    const size = Math.sqrt(dot(scaled[source] as Float64Array, scaled[source] as Float64Array));
    if (size === 0) return;
    for (let row = 0; row < outSize; row++) outB[row * rank + target] = dotOf(given, (k) => (left.basis[k]?.[row] as number) * (scaled[source]?.[k] as number));
    for (let column = 0; column < inSize; column++) outA[target * inSize + column] = dotOf(given, (k) => (right.basis[k]?.[column] as number) * (rotation[source]?.[k] as number));
  });
  return { a: outA, b: outB };
}

/** Gram-Schmidt, twice for precision. @returns columns of Q, zero where dependent, and R by rows */
function orthonormalised(columns: readonly Float64Array[]): { readonly basis: Float64Array[]; readonly upper: Float64Array[] } {
  const basis: Float64Array[] = [];
  const upper = columns.map(() => new Float64Array(columns.length));
  columns.forEach((column, j) => {
    const rest = column.slice();
    const before = Math.sqrt(dot(column, column));
    for (let round = 0; round < 2; round++) {
      basis.forEach((direction, i) => {
        const along = dot(direction, rest);
        (upper[i] as Float64Array)[j] = at(upper, i, j) + along;
        rest.forEach((_, index) => ((rest[index] as number) -= along * (direction[index] as number)));
      });
    }
    const size = Math.sqrt(dot(rest, rest));
    const dependent = size <= 1e-12 * before;
    (upper[j] as Float64Array)[j] = dependent ? 0 : size;
    basis.push(dependent ? new Float64Array(rest.length) : rest.map((value) => value / size));
  });
  return { basis, upper };
}

const SWEEPS_MAX = 60;

/** One-sided Jacobi: rotates columns until they are orthogonal. @returns U S and V by columns, and the columns by falling singular value */
function jacobi(columns: readonly Float64Array[]): { readonly left: Float64Array[]; readonly right: Float64Array[]; readonly order: number[] } {
  const left = columns.map((column) => column.slice());
  const right = columns.map((_, j) => Float64Array.from(columns, (_column, i) => (i === j ? 1 : 0)));
  for (let sweep = 0, rotated = true; rotated && sweep < SWEEPS_MAX; sweep++) {
    rotated = false;
    for (let p = 0; p < left.length; p++) {
      for (let q = p + 1; q < left.length; q++) {
        const [x, y] = [left[p] as Float64Array, left[q] as Float64Array];
        const [xx, yy, xy] = [dot(x, x), dot(y, y), dot(x, y)];
        if (Math.abs(xy) <= 1e-15 * Math.sqrt(xx * yy)) continue;
        rotated = true;
        const zeta = (yy - xx) / (2 * xy);
        const tangent = (zeta >= 0 ? 1 : -1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        rotate(x, y, cosine, cosine * tangent);
        rotate(right[p] as Float64Array, right[q] as Float64Array, cosine, cosine * tangent);
      }
    }
  }
  const sizes = left.map((column) => dot(column, column));
  return { left, right, order: sizes.map((_, index) => index).sort((i, j) => (sizes[j] as number) - (sizes[i] as number)) };
}

function rotate(x: Float64Array, y: Float64Array, cosine: number, sine: number): void {
  for (let index = 0; index < x.length; index++) {
    const [u, v] = [x[index] as number, y[index] as number];
    x[index] = cosine * u - sine * v;
    y[index] = sine * u + cosine * v;
  }
}

const at = (matrix: readonly Float64Array[], row: number, column: number): number => matrix[row]?.[column] as number;
const dot = (x: Float64Array, y: Float64Array): number => dotOf(x.length, (index) => (x[index] as number) * (y[index] as number));
function dotOf(length: number, term: (index: number) => number): number {
  let sum = 0;
  for (let index = 0; index < length; index++) sum += term(index);
  return sum;
}

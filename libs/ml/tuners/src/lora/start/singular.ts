import { fillNormal } from '@tunefleet/foundation';
import { multiplyBack, multiplyForward, type FrozenMatrix } from '@tunefleet/ml-tensor';
import { symmetricEigen } from './symmetric-eigen';

/** Some of the largest singular values of W [out, in], largest first, with their vectors as rows. */
export interface SingularPart {
  readonly values: Float64Array;
  /** [r, out] */
  readonly left: readonly Float64Array[];
  /** [r, in] */
  readonly right: readonly Float64Array[];
}

/** More directions than asked for, which makes the wanted ones much better. @see Halko, Martinsson and Tropp 2011, arXiv:0909.4061, section 1.3 */
const OVERSAMPLING = 10;
/** The random directions are always the same: what follows from a matrix must follow from it alone, so that a run can be resumed. */
const SEED = 0x51_5a;
/** Share of the largest singular value below which the square roots of the eigenvalues are rounding errors. */
const RELATIVE_MIN = 1e-7;

/** Exactly, from the eigenvectors of the smaller of Wᵀ W and W Wᵀ in double precision. @param rows of W */
export function largestSingular(rows: readonly Float32Array[], rank: number): SingularPart {
  const [outSize, inSize] = [rows.length, rows[0]?.length ?? 0];
  if (outSize < inSize) {
    const { values, left, right } = largestSingular(transposedRows(rows), rank);
    return { values, left: right, right: left };
  }
  const gram = Array.from({ length: inSize }, () => new Float64Array(inSize));
  for (const row of rows) {
    for (let i = 0; i < inSize; i++) {
      const [target, value] = [gram[i] as Float64Array, row[i] as number];
      for (let j = 0; j <= i; j++) target[j] = (target[j] as number) + value * (row[j] as number);
    }
  }
  for (let i = 0; i < inSize; i++) for (let j = i + 1; j < inSize; j++) (gram[i] as Float64Array)[j] = (gram[j] as Float64Array)[i] as number;
  const { order, values } = largestEigen(gram, rank);
  const right = order.map((index) => gram[index] as Float64Array);
  const left = right.map((vector, k) => Float64Array.from(rows, (row) => divided(dot(row, vector), values[k] as number)));
  return { values, left, right };
}

/** By powers of W Wᵀ on random directions, multiplied on the device in f32 and made orthogonal in double precision. @param weight f32 */
export function approximateSingular(weight: FrozenMatrix, rank: number, powers: number): SingularPart {
  const { outSize, inSize } = weight;
  const { device } = weight.value;
  const count = Math.min(rank + OVERSAMPLING, outSize, inSize);
  const product = (rows: readonly Float64Array[], multiply: typeof multiplyForward): Float64Array[] =>
    device.scope(() => {
      const size = rows[0]?.length ?? 0;
      const flat = new Float32Array(rows.length * size);
      rows.forEach((row, index) => flat.set(row, index * size));
      const result = device.readFloats(multiply(device.tensor(flat, [rows.length, size], 'f32'), weight));
      const width = result.length / rows.length;
      return rows.map((_, index) => Float64Array.from(result.subarray(index * width, (index + 1) * width)));
    });
  const random = new Float32Array(count * inSize);
  fillNormal(random, 1, SEED, 0);
  const start = Array.from({ length: count }, (_, index) => Float64Array.from(random.subarray(index * inSize, (index + 1) * inSize)));
  let basis = orthonormal(product(start, multiplyForward)); // [count, out]
  for (let power = 0; power < powers; power++) basis = orthonormal(product(orthonormal(product(basis, multiplyBack)), multiplyForward));
  const projected = product(basis, multiplyBack); // [count, in]
  const gram = projected.map((row) => Float64Array.from(projected, (other) => dot(row, other)));
  const { order, values } = largestEigen(gram, rank);
  const combined = (rows: readonly Float64Array[], index: number): Float64Array => {
    const sum = new Float64Array(rows[0]?.length ?? 0);
    rows.forEach((row, k) => addScaled(sum, row, (gram[index] as Float64Array)[k] as number));
    return sum;
  };
  const right = order.map((index, k) => combined(projected, index).map((value) => divided(value, values[k] as number)));
  return { values, left: order.map((index) => combined(basis, index)), right };
}

/** @param gram columns, overwritten by eigenvectors   @returns indices of the largest, and the roots of their eigenvalues */
function largestEigen(gram: readonly Float64Array[], rank: number): { readonly order: number[]; readonly values: Float64Array } {
  const eigenvalues = symmetricEigen(gram);
  const order = [...eigenvalues.keys()].sort((a, b) => (eigenvalues[b] as number) - (eigenvalues[a] as number) || a - b).slice(0, rank);
  const values = Float64Array.from(order, (index) => Math.sqrt(Math.max(0, eigenvalues[index] as number)));
  const least = RELATIVE_MIN * (values[0] ?? 0);
  return { order, values: values.map((value) => (value < least ? 0 : value)) };
}

/** Gram-Schmidt by rows, twice, in place. */
function orthonormal(rows: Float64Array[]): Float64Array[] {
  for (const [index, row] of rows.entries()) {
    for (let pass = 0; pass < 2; pass++) for (let other = 0; other < index; other++) addScaled(row, rows[other] as Float64Array, -dot(row, rows[other] as Float64Array));
    const length = Math.sqrt(dot(row, row));
    for (let i = 0; i < row.length; i++) row[i] = divided(row[i] as number, length);
  }
  return rows;
}

function addScaled(target: Float64Array, source: Float64Array, factor: number): void {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) + factor * (source[i] as number);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

const divided = (value: number, by: number): number => (by === 0 ? 0 : value / by);

function transposedRows(rows: readonly Float32Array[]): Float32Array[] {
  return Array.from(rows[0] ?? [], (_, column) => Float32Array.from(rows, (row) => row[column] as number));
}

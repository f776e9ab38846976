import { fillNormal } from '@tunefleet/foundation';

/**
 * The first r columns of Q and rows of R in W = Q R, by Householder reflections as LAPACK makes them (R's diagonal has the sign opposite to the pivot).
 * @param rows of W [out, in], r at most both
 * @returns q: r vectors of length out; r: r rows of length in
 */
export function leadingQr(rows: readonly ArrayLike<number>[], rank: number): { readonly q: Float64Array[]; readonly r: Float64Array[] } {
  const [outSize, inSize] = [rows.length, rows[0]?.length ?? 0];
  const columns = Array.from({ length: rank }, (_, column) => Float64Array.from(rows, (row) => row[column] as number));
  const reflections: Float64Array[] = [];
  for (let k = 0; k < rank; k++) {
    const column = columns[k] as Float64Array;
    const reflection = new Float64Array(outSize);
    let square = 0;
    for (let i = k; i < outSize; i++) square += (column[i] as number) ** 2;
    const pivot = column[k] as number;
    const length = Math.sqrt(square);
    for (let i = k; i < outSize; i++) reflection[i] = column[i] as number;
    reflection[k] = pivot + (pivot < 0 ? -length : length);
    normalise(reflection);
    reflections.push(reflection);
    for (let later = k; later < rank; later++) reflect(columns[later] as Float64Array, reflection);
  }
  const q = Array.from({ length: rank }, (_, index) => {
    const unit = new Float64Array(outSize);
    unit[index] = 1;
    for (const reflection of [...reflections].reverse()) reflect(unit, reflection);
    return unit;
  });
  const r = q.map((vector, index) => {
    const row = new Float64Array(inSize);
    rows.forEach((source, i) => {
      const factor = vector[i] as number;
      for (let j = index; j < inSize; j++) row[j] = (row[j] as number) + factor * (source[j] as number);
    });
    return row;
  });
  return { q, r };
}

/** `count` random orthonormal vectors of length `size`, a function of (seed, stream). */
export function randomOrthonormal(count: number, size: number, seed: number, stream: number): Float64Array[] {
  const random = new Float32Array(size * count);
  fillNormal(random, 1, seed, stream);
  return leadingQr(Array.from({ length: size }, (_, row) => random.subarray(row * count, (row + 1) * count)), count).q;
}

/** In place: x - 2 v (v · x). */
function reflect(x: Float64Array, v: Float64Array): void {
  let dot = 0;
  for (let i = 0; i < x.length; i++) dot += (x[i] as number) * (v[i] as number);
  for (let i = 0; i < x.length; i++) x[i] = (x[i] as number) - 2 * dot * (v[i] as number);
}

function normalise(v: Float64Array): void {
  let square = 0;
  for (const value of v) square += value * value;
  const length = Math.sqrt(square);
  if (length > 0) for (let i = 0; i < v.length; i++) v[i] = (v[i] as number) / length;
}

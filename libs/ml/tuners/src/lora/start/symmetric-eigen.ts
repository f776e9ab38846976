/**
 * Eigenvalues and eigenvectors of a symmetric matrix: Householder tridiagonalisation, then implicit QL. Double precision, the same bits everywhere.
 * @param columns n columns of length n, overwritten by the eigenvectors
 * @returns eigenvalues in the order of the vectors, not sorted
 * @see Bowdler, Martin, Reinsch and Wilkinson 1968, doi:10.1007/BF02165407, procedures tred2 and tql2
 */
export function symmetricEigen(columns: readonly Float64Array[]): Float64Array {
  const n = columns.length;
  const [diagonal, beside] = [new Float64Array(n), new Float64Array(n)];
  tridiagonalise(columns, diagonal, beside);
  diagonalise(columns, diagonal, beside);
  return diagonal;
}

function tridiagonalise(v: readonly Float64Array[], d: Float64Array, e: Float64Array): void {
  const n = v.length;
  const at = (row: number, column: number) => (v[column] as Float64Array)[row] as number;
  for (let j = 0; j < n; j++) d[j] = at(n - 1, j);
  for (let i = n - 1; i > 0; i--) {
    const column = v[i] as Float64Array;
    let [scale, h] = [0, 0];
    for (let k = 0; k < i; k++) scale += Math.abs(d[k] as number);
    if (scale === 0) {
      e[i] = d[i - 1] as number;
      for (let j = 0; j < i; j++) {
        d[j] = at(i - 1, j);
        (v[j] as Float64Array)[i] = 0;
        column[j] = 0;
      }
    } else {
      for (let k = 0; k < i; k++) {
        const scaled = (d[k] as number) / scale;
        d[k] = scaled;
        h += scaled * scaled;
      }
      const last = d[i - 1] as number;
      const root = last > 0 ? -Math.sqrt(h) : Math.sqrt(h);
      e[i] = scale * root;
      h -= last * root;
      d[i - 1] = last - root;
      e.fill(0, 0, i);
      for (let j = 0; j < i; j++) {
        const [own, f] = [v[j] as Float64Array, d[j] as number];
        column[j] = f;
        let g = (e[j] as number) + (own[j] as number) * f;
        for (let k = j + 1; k < i; k++) {
          g += (own[k] as number) * (d[k] as number);
          e[k] = (e[k] as number) + (own[k] as number) * f;
        }
        e[j] = g;
      }
      let f = 0;
      for (let j = 0; j < i; j++) {
        e[j] = (e[j] as number) / h;
        f += (e[j] as number) * (d[j] as number);
      }
      const half = f / (h + h);
      for (let j = 0; j < i; j++) e[j] = (e[j] as number) - half * (d[j] as number);
      for (let j = 0; j < i; j++) {
        const [own, dj, ej] = [v[j] as Float64Array, d[j] as number, e[j] as number];
        for (let k = j; k < i; k++) own[k] = (own[k] as number) - (dj * (e[k] as number) + ej * (d[k] as number));
        d[j] = own[i - 1] as number;
        own[i] = 0;
      }
    }
    d[i] = h;
  }
  accumulate(v, d);
  e[0] = 0;
}

/** Turns the stored reflections into the matrix they make together. */
function accumulate(v: readonly Float64Array[], d: Float64Array): void {
  const n = v.length;
  for (let i = 0; i < n - 1; i++) {
    const [own, next] = [v[i] as Float64Array, v[i + 1] as Float64Array];
    own[n - 1] = own[i] as number;
    own[i] = 1;
    const h = d[i + 1] as number;
    if (h !== 0) {
      for (let k = 0; k <= i; k++) d[k] = (next[k] as number) / h;
      for (let j = 0; j <= i; j++) {
        const column = v[j] as Float64Array;
        let g = 0;
        for (let k = 0; k <= i; k++) g += (next[k] as number) * (column[k] as number);
        for (let k = 0; k <= i; k++) column[k] = (column[k] as number) - g * (d[k] as number);
      }
    }
    next.fill(0, 0, i + 1);
  }
  for (let j = 0; j < n; j++) {
    const column = v[j] as Float64Array;
    d[j] = column[n - 1] as number;
    column[n - 1] = j === n - 1 ? 1 : 0;
  }
}

function diagonalise(v: readonly Float64Array[], d: Float64Array, e: Float64Array): void {
  const n = v.length;
  const [D, E] = [(i: number) => d[i] as number, (i: number) => e[i] as number];
  e.copyWithin(0, 1);
  e[n - 1] = 0;
  let [shift, largest] = [0, 0];
  for (let l = 0; l < n; l++) {
    largest = Math.max(largest, Math.abs(D(l)) + Math.abs(E(l)));
    const negligible = Number.EPSILON * largest;
    let m = l;
    while (m < n - 1 && Math.abs(E(m)) > negligible) m++;
    while (m > l && Math.abs(E(l)) > negligible) {
      const before = D(l);
      let p = (D(l + 1) - before) / (2 * E(l));
      const r = p < 0 ? -Math.sqrt(p * p + 1) : Math.sqrt(p * p + 1);
      d[l] = E(l) / (p + r);
      d[l + 1] = E(l) * (p + r);
      const [next, h] = [D(l + 1), before - D(l)];
      for (let i = l + 2; i < n; i++) d[i] = D(i) - h;
      shift += h;
      p = D(m);
      let [c, c2, c3, s, s2] = [1, 1, 1, 0, 0];
      const beyond = E(l + 1);
      for (let i = m - 1; i >= l; i--) {
        [c3, c2, s2] = [c2, c, s];
        const [g, hp, length] = [c * E(i), c * p, Math.sqrt(p * p + E(i) * E(i))];
        e[i + 1] = s * length;
        s = E(i) / length;
        c = p / length;
        p = c * D(i) - s * g;
        d[i + 1] = hp + s * (c * g + s * D(i));
        rotate(v[i] as Float64Array, v[i + 1] as Float64Array, c, s);
      }
      p = (-s * s2 * c3 * beyond * E(l)) / next;
      e[l] = s * p;
      d[l] = c * p;
    }
    d[l] = D(l) + shift;
    e[l] = 0;
  }
}

function rotate(a: Float64Array, b: Float64Array, c: number, s: number): void {
  for (let k = 0; k < a.length; k++) {
    const [x, y] = [a[k] as number, b[k] as number];
    b[k] = s * x + c * y;
    a[k] = c * x - s * y;
  }
}

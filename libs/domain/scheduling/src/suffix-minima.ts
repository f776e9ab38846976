/** Values in a row, and the smallest of them from any place on in logarithmic time: a tree of minima. */
export class SuffixMinima {
  private readonly size: number;
  /** The root at 1, the children of n at 2n and 2n + 1, the values from `size` on. */
  private readonly tree: Float64Array;

  constructor(values: Float64Array) {
    this.size = 1;
    while (this.size < values.length) this.size *= 2;
    this.tree = new Float64Array(2 * this.size).fill(Infinity);
    this.tree.set(values, this.size);
    for (let node = this.size - 1; node > 0; node--) this.tree[node] = this.smallerChild(node);
  }

  set(at: number, value: number): void {
    let node = this.size + at;
    this.tree[node] = value;
    for (node >>= 1; node > 0; node >>= 1) {
      const smaller = this.smallerChild(node);
      if (this.tree[node] === smaller) return;
      this.tree[node] = smaller;
    }
  }

  /** Place of the first of the smallest values from `from` on; -1: they are all infinite. */
  smallestFrom(from: number): number {
    const { tree, size } = this;
    if (from >= size) return -1;
    let best = -1;
    let smallest = Infinity;
    // The subtrees that make up the rest of the row, from left to right.
    for (let node = size + from; node > 0; ) {
      if ((tree[node] as number) < smallest) {
        smallest = tree[node] as number;
        best = node;
      }
      while ((node & 1) === 1) node >>= 1;
      if (node === 0) break;
      node += 1;
    }
    if (best < 0) return -1;
    while (best < size) best = (tree[2 * best] as number) === smallest ? 2 * best : 2 * best + 1;
    return best - size;
  }

  private smallerChild(node: number): number {
    return Math.min(this.tree[2 * node] as number, this.tree[2 * node + 1] as number);
  }
}

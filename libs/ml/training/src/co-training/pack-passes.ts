/** Size of a run's pass, padding included. */
export interface PassSize {
  readonly rows: number;
  readonly columns: number;
}

/**
 * Which passes share one. A shared pass is as wide as its widest member, so members of like width go together; passes of equally many rows are neighbours, because
 * their low-rank updates run as one product. A pass that is larger than the limit by itself has no company.
 * @param tokensMax of a shared pass, padding included
 * @returns places in `sizes`, each once
 */
export function packPasses(sizes: readonly PassSize[], tokensMax: number): number[][] {
  const order = [...sizes.keys()].sort((a, b) => sizeAt(sizes, b).columns - sizeAt(sizes, a).columns || sizeAt(sizes, b).rows - sizeAt(sizes, a).rows || a - b);
  const packs: { columns: number; rows: number; members: number[] }[] = [];
  for (const index of order) {
    const { rows, columns } = sizeAt(sizes, index);
    const last = packs.at(-1);
    if (last && (last.rows + rows) * last.columns <= tokensMax) {
      last.rows += rows;
      last.members.push(index);
    } else packs.push({ columns, rows, members: [index] });
  }
  return packs.map(({ members }) => members.sort((a, b) => sizeAt(sizes, b).rows - sizeAt(sizes, a).rows || a - b));
}

function sizeAt(sizes: readonly PassSize[], index: number): PassSize {
  return sizes[index] as PassSize;
}

/** Row widths are rounded up to this: fewer distinct shapes, and kernels like whole vectors. */
const WIDTH_MULTIPLE = 8;
/** Query-key pairs that any device has memory for, however few tokens the examples have. */
const PAIRS_ALWAYS_ALLOWED = 2 ** 18;

/** How examples are laid out in the rows of one pass. */
export interface BatchLayout {
  /** Per row the positions of its examples in the given order. */
  readonly rows: readonly (readonly number[])[];
  /** Tokens of a row, padding included. */
  readonly columns: number;
  /** Per row the leading tokens that its examples have in common and that stand in it once. */
  readonly trunks: readonly number[];
}

export interface LayoutOptions {
  /** Tokens per example, longest first. */
  readonly lengths: readonly number[];
  /** Leading tokens that all examples share and that carry no loss. */
  readonly sharedPrefix: number;
  /** How many query-key pairs of attention cost as much as one token costs in everything else. */
  readonly pairsPerToken: number;
  /** Examples with a longer common beginning of their own, such as the answers to one prompt: another layout gives each of these its row. */
  readonly groups?: readonly { readonly members: readonly number[]; readonly sharedPrefix: number }[];
}

/**
 * The cheapest of the layouts by groups and from one example per row to all in one row. More examples per row share their prefix and need less padding, but every token is
 * scored against the whole row. Takes at most the pairs that one example per row takes, or 2^18.
 */
export function layOut({ lengths, sharedPrefix, pairsPerToken, groups }: LayoutOptions): BatchLayout {
  const single: BatchLayout = { rows: lengths.map((_, index) => [index]), columns: paddedWidth(Math.max(...lengths)), trunks: lengths.map(() => 0) };
  const pairsMax = Math.max(pairsOf(single), PAIRS_ALWAYS_ALLOWED);
  const cost = (layout: BatchLayout): number => layout.rows.length * layout.columns + pairsOf(layout) / pairsPerToken;
  let best = single;
  const consider = (layout: BatchLayout): void => {
    if (pairsOf(layout) <= pairsMax && cost(layout) < cost(best)) best = layout;
  };
  for (let rows = lengths.length - 1; rows >= 1; rows--) consider(intoRows(lengths, sharedPrefix, rows));
  if (groups) {
    const widths = groups.map(({ members, sharedPrefix: trunk }) => members.reduce((sum, member) => sum + (lengths[member] as number) - trunk, trunk));
    consider({ rows: groups.map(({ members }) => members), columns: paddedWidth(Math.max(...widths)), trunks: groups.map(({ sharedPrefix: trunk }) => trunk) });
  }
  return best;
}

export function paddedWidth(tokens: number): number {
  return Math.ceil(tokens / WIDTH_MULTIPLE) * WIDTH_MULTIPLE;
}

/** Each example goes to the row that is shortest so far. */
function intoRows(lengths: readonly number[], trunk: number, count: number): BatchLayout {
  const rows = Array.from({ length: count }, () => ({ members: [] as number[], tokens: trunk }));
  lengths.forEach((length, index) => {
    const shortest = rows.reduce((least, row) => (row.tokens < least.tokens ? row : least));
    shortest.members.push(index);
    shortest.tokens += length - trunk;
  });
  return { rows: rows.map(({ members }) => members), columns: paddedWidth(Math.max(...rows.map(({ tokens }) => tokens))), trunks: rows.map(() => trunk) };
}

function pairsOf({ rows, columns }: BatchLayout): number {
  return rows.length * columns ** 2;
}

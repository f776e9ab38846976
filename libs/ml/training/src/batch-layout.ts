import { QUERY_BLOCK } from '@tunefleet/ml-tensor';

/** Row widths are rounded up to this: fewer distinct shapes, and kernels like whole vectors. */
const WIDTH_MULTIPLE = 8;
/** Scores at once, per head, that any device has memory for, however few tokens the examples have. */
const SCORES_ALWAYS_ALLOWED = 2 ** 18;

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
  /** How many scores of attention, a query and a key each, cost as much as one token costs in everything else. */
  readonly pairsPerToken: number;
  /** Examples with a longer common beginning of their own, such as the answers to one prompt: another layout gives each of these its row. */
  readonly groups?: readonly { readonly members: readonly number[]; readonly sharedPrefix: number }[];
}

/**
 * The cheapest of the layouts by groups and from one example per row to all in one row. More examples per row share their prefix and need less padding, but a token is
 * scored against neighbours that it does not see, too. Has at most as many scores at once as one example per row, or 2^18.
 */
export function layOut({ lengths, sharedPrefix, pairsPerToken, groups }: LayoutOptions): BatchLayout {
  const single: BatchLayout = { rows: lengths.map((_, index) => [index]), columns: paddedWidth(Math.max(...lengths)), trunks: lengths.map(() => 0) };
  const scoresMax = Math.max(scoresOf(single, lengths).atOnce, SCORES_ALWAYS_ALLOWED);
  const cost = (layout: BatchLayout): number => layoutCost(layout, lengths, pairsPerToken);
  let best = single;
  const consider = (layout: BatchLayout): void => {
    if (scoresOf(layout, lengths).atOnce <= scoresMax && cost(layout) < cost(best)) best = layout;
  };
  for (let rows = lengths.length - 1; rows >= 1; rows--) consider(intoRows(lengths, sharedPrefix, rows));
  if (groups) {
    const widths = groups.map(({ members, sharedPrefix: trunk }) => members.reduce((sum, member) => sum + (lengths[member] as number) - trunk, trunk));
    consider({ rows: groups.map(({ members }) => members), columns: paddedWidth(Math.max(...widths)), trunks: groups.map(({ sharedPrefix: trunk }) => trunk) });
  }
  return best;
}

/** In tokens. */
export function layoutCost(layout: BatchLayout, lengths: readonly number[], pairsPerToken: number): number {
  return layout.rows.length * layout.columns + scoresOf(layout, lengths).all / pairsPerToken;
}

/**
 * Scores of attention per head: a block of queries against the trunk and all from the first of its examples to its own end, in whatever row that is most.
 * @returns all of them, and the most that there are at once
 */
export function scoresOf({ rows, columns, trunks }: BatchLayout, lengths: readonly number[]): { readonly all: number; readonly atOnce: number } {
  const count = Math.max(1, Math.floor(columns / QUERY_BLOCK));
  const starts = rows.map((members, row) => startsOf(members, trunks[row] as number, lengths));
  let [all, atOnce] = [0, 0];
  for (let block = 0; block < count; block++) {
    const [from, to] = [Math.round((block * columns) / count), Math.round(((block + 1) * columns) / count)];
    const keys = rows.map((_, row) => {
      const first = starts[row]?.findLast((start) => start <= from) ?? 0;
      return Math.min(trunks[row] as number, first) + to - first;
    });
    const scores = rows.length * (to - from) * Math.max(...keys);
    [all, atOnce] = [all + scores, Math.max(atOnce, scores)];
  }
  return { all, atOnce };
}

/** Where a row's examples begin, the first with the trunk, and where its padding does. */
function startsOf(members: readonly number[], trunk: number, lengths: readonly number[]): number[] {
  const starts = [0];
  let end = 0;
  members.forEach((member, index) => {
    end += (lengths[member] as number) - (index === 0 ? 0 : trunk);
    starts.push(end);
  });
  return starts;
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

import { IGNORED_LABEL } from '@tunefleet/ml-data';
import type { TokenBatch } from '@tunefleet/ml-models';
import type { TrainingBatch } from '../collate';

/** Several batches as the rows of one, in their order. */
export interface JoinedBatch {
  readonly tokens: TokenBatch;
  /** Tokens whose hidden states are wanted, ascending. */
  readonly outputRows: Int32Array;
  /** Per batch, labels of its wanted tokens; at least one, which carries no loss where none does. */
  readonly labels: readonly Int32Array[];
}

/** Rows are padded on the right to the widest batch. */
export function joinBatches(batches: readonly Pick<TrainingBatch, 'tokens' | 'labels'>[]): JoinedBatch {
  const columns = Math.max(...batches.map(({ tokens }) => tokens.columns));
  const rows = batches.reduce((sum, { tokens }) => sum + tokens.rows, 0);
  const shared = batches.some(({ tokens }) => tokens.branches);
  // Zero is a token and a position of every model.
  const [ids, positions, branches] = [new Int32Array(rows * columns), new Int32Array(rows * columns), new Int32Array(rows * columns)];
  const outputRows: number[] = [];
  const labels: Int32Array[] = [];
  let first = 0;
  for (const { tokens, labels: given } of batches) {
    const own: number[] = [];
    const take = (at: number): void => {
      outputRows.push((first + Math.floor(at / tokens.columns)) * columns + (at % tokens.columns));
      own.push(given[at] as number);
    };
    for (let at = 0; at < given.length; at++) {
      const to = (first + Math.floor(at / tokens.columns)) * columns + (at % tokens.columns);
      ids[to] = tokens.ids[at] as number;
      positions[to] = tokens.positions?.[at] ?? at % tokens.columns;
      branches[to] = tokens.branches?.[at] ?? 0;
      if (given[at] !== IGNORED_LABEL) take(at);
    }
    if (own.length === 0) take(0);
    labels.push(Int32Array.from(own));
    first += tokens.rows;
  }
  return { tokens: { ids, rows, columns, ...(shared ? { positions, branches } : {}) }, outputRows: Int32Array.from(outputRows), labels };
}

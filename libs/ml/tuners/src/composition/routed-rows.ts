import { invariant } from '@tunefleet/foundation';
import type { ModelHook, PassRows } from '@tunefleet/ml-nn';
import { concatRows, placeRows, selectRows, splitAxis, type Tensor } from '@tunefleet/ml-tensor';

/** Neighbouring rows of a batch under one adapter. */
export interface HookRoute {
  /** How many rows; routes follow one another. */
  readonly rows: number;
  /** Borrowed; null: the base. */
  readonly hook: ModelHook | null;
  /** Of a row, those that are this route's: what is behind them is padding, which its hook never sees. Default: all. */
  readonly columns?: number;
}

/** A route's part of the tensors of one call. */
export interface RoutePart {
  readonly route: number;
  readonly hook: ModelHook | null;
  /** Its rows of each tensor. */
  readonly tensors: readonly Tensor[];
  /** Where they are among the rows of the tensors. */
  readonly begin: number;
  /** Which of them are no padding; null: all. */
  readonly own: Int32Array | null;
}

/** Where the rows of every route are in the tensors of one pass. */
export class RoutedRows {
  constructor(
    private readonly routes: readonly HookRoute[],
    private readonly pass: PassRows,
  ) {
    const rows = routes.reduce((sum, route) => sum + route.rows, 0);
    invariant(rows === pass.rows, `routes of ${rows} rows met a batch of ${pass.rows}`);
  }

  /** How many of a tensor's rows are each route's. @param total all tokens of the pass, or the wanted ones */
  counts(total: number): number[] {
    const { rows, columns, outputRows } = this.pass;
    if (total === rows * columns) return this.routes.map((route) => route.rows * columns);
    invariant(outputRows && total === outputRows.length, `a tensor of ${total} rows in a pass of ${rows} x ${columns}`);
    let [at, end] = [0, 0];
    return this.routes.map((route) => {
      const from = at;
      end += route.rows * columns;
      while (at < outputRows.length && (outputRows[at] as number) < end) at++;
      return at - from;
    });
  }

  /** Which of a route's part of `total` rows are no padding; null: all. */
  own(route: number, total: number): Int32Array | null {
    const { rows, columns } = this.pass;
    const { rows: count, columns: width = columns } = this.routes[route] as HookRoute;
    if (width === columns || total !== rows * columns) return null;
    return Int32Array.from({ length: count * width }, (_, at) => Math.floor(at / width) * columns + (at % width));
  }

  /** Gives every route its rows of the tensors, and puts the results one below the other. */
  map(tensors: readonly Tensor[], change: (part: RoutePart) => Tensor): Tensor {
    const [first] = tensors as readonly [Tensor];
    const total = first.dim(0);
    return first.device.scope(() => {
      const counts = this.counts(total);
      const split = tensors.map((each) => splitRows(each, counts));
      let begin = 0;
      return concatRows(
        counts.flatMap((count, route) => {
          begin += count;
          if (count === 0) return [];
          return [change({ route, hook: (this.routes[route] as HookRoute).hook, tensors: split.map((parts) => parts[route] as Tensor), begin: begin - count, own: this.own(route, total) })];
        }),
      );
    });
  }
}

/** Contiguous rows, in order; null where a count is 0. */
export function splitRows(x: Tensor, counts: readonly number[]): (Tensor | null)[] {
  const parts = splitAxis(x, counts.filter((count) => count > 0), 0).values();
  return counts.map((count) => (count > 0 ? (parts.next().value as Tensor) : null));
}

/** `change` of the rows that are no padding; the padding of what it gives is zero. */
export function withoutPadding<T extends readonly Tensor[]>(tensors: readonly Tensor[], own: Int32Array | null, change: (tensors: readonly Tensor[]) => T): readonly Tensor[] {
  if (!own) return change(tensors);
  const [first] = tensors as readonly [Tensor];
  return change(tensors.map((tensor) => selectRows(tensor, own))).map((changed) => placeRows(changed, own, first.dim(0)));
}

import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import { customOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { multiplyBack, multiplyForward, type FrozenMap } from './frozen-matrix';
import type { LoraStack } from './lora-stack';

/** Contiguous rows of the input. */
export interface LaneRows {
  readonly begin: number;
  readonly count: number;
}

/** Which rows every lane of a stack updates. */
export interface RoutedLora {
  readonly stack: LoraStack;
  /** One entry per lane; a lane may have no rows. Fast where lanes follow each other as their rows do. */
  readonly lanes: readonly LaneRows[];
}

/**
 * `linearGroup` with another low-rank update for each of several ranges of rows, and none for the rest: the frozen products are made once, of all rows, and the
 * updates of equally long neighbouring ranges in batched products. Nothing of one range enters another, not even what is not finite.
 * Keeps x and the narrow products.
 * @param x [N, in] in the compute dtype   @param routes ranges that do not overlap
 * @param residual [N, out], added to the output of a group of one map
 * @returns per map [N, out_i]
 */
export function routedLinearGroup(x: Tensor, maps: readonly FrozenMap[], routes: readonly RoutedLora[], residual: Tensor | null = null): readonly Tensor[] {
  invariant(!residual || maps.length === 1, `a residual goes with one map, not ${maps.length}`);
  const p = x.device.primitives;
  const runs = routes.flatMap(({ stack, lanes }, route) => equalRuns(lanes).map((run) => ({ ...run, stack, route }))).sort((a, b) => a.begin - b.begin);
  return customOp(x.device, {
    name: 'routedLinearGroup',
    inputs: [x, ...(residual ? [residual] : []), ...routes.flatMap(({ stack }) => stack.sources)],
    run: () => {
      const narrow = runs.map((run) => p.batchMatMul(cut(p, x, run), lanesOf(p, run.stack.a, run), false, true)); // [lanes, count, R]
      const outputs = maps.map(({ weight, bias }, map) => {
        const product = multiplyForward(x, weight);
        const changes = runs.map((run, index) => {
          const b = run.stack.b[map];
          return b ? p.batchMatMul(narrow[index] as Tensor, lanesOf(p, b, run)) : null; // [lanes, count, out]
        });
        const change = lined(p, runs, changes, product);
        return sumOf(p, [bias ? p.add(product, bias) : product, ...(change ? [change] : []), ...(residual ? [residual] : [])]);
      });
      const factors = routes.flatMap(({ stack: { a, b, held } }) => [a, ...b.filter((each) => each !== null), ...held]);
      return { outputs, save: [x, ...narrow, ...factors, ...maps.map(({ weight }) => weight.value)] };
    },
    backward: ({ gradients, saved: [source, ...kept], needs }) => {
      if (!source) return [];
      const pieces = runs.map((run, index) => rangeGradients(p, run, { x: source, narrow: kept[index] as Tensor, gradients }));
      const dx: Tensor[] = [];
      if (needs[0]) {
        gradients.forEach((g, map) => g && dx.push(multiplyBack(g, (maps[map] as FrozenMap).weight)));
        const change = lined(p, runs, pieces.map((piece) => piece && p.batchMatMul(piece.dNarrow, piece.a)), source);
        if (change) dx.push(change);
      }
      const trained = routes.flatMap(({ stack, lanes }, route) => {
        const own = runs.flatMap((run, index) => (run.route === route ? [{ run, piece: pieces[index] ?? null }] : []));
        const ofLanes = (like: Tensor, of: (index: number) => Tensor | null): Tensor | null => lanesTogether(p, own.map(({ run }, index) => ({ ...run, value: of(index) })), lanes.length, like);
        const dA = ofLanes(stack.a, (index) => own[index]?.piece?.dA ?? null);
        if (!dA) return stack.sources.map(() => null);
        return stack.sourceGradients(p, dA, stack.b.map((b, map) => b && ofLanes(b, (index) => own[index]?.piece?.dB[map] ?? null)));
      });
      return [dx.length > 0 ? sumOf(p, dx) : null, ...(residual ? [gradients[0] ?? null] : []), ...trained];
    },
  });
}

/** Neighbouring lanes of equally many, adjoining rows. */
interface LaneRun extends LaneRows {
  /** First of the lanes, and how many. */
  readonly lane: number;
  readonly lanes: number;
}

function equalRuns(lanes: readonly LaneRows[]): LaneRun[] {
  const runs: LaneRun[] = [];
  lanes.forEach(({ begin, count }, lane) => {
    if (count === 0) return;
    const last = runs.at(-1);
    const adjoins = last && last.count === count && last.lane + last.lanes === lane && last.begin + last.lanes * count === begin;
    if (adjoins) runs[runs.length - 1] = { ...last, lanes: last.lanes + 1 };
    else runs.push({ begin, count, lane, lanes: 1 });
  });
  return runs;
}

interface RangeGradients {
  /** [lanes, R, in] the factors, and the gradients by them. */
  readonly a: Tensor;
  readonly dA: Tensor;
  /** Per map [lanes, R, out]. */
  readonly dB: readonly (Tensor | null)[];
  /** [lanes, count, R] */
  readonly dNarrow: Tensor;
}

/** @returns null where no gradient comes */
function rangeGradients(p: Primitives, run: LaneRun & { readonly stack: LoraStack }, { x, narrow, gradients }: { readonly x: Tensor; readonly narrow: Tensor; readonly gradients: readonly (Tensor | null)[] }): RangeGradients | null {
  const { a, b } = run.stack;
  const cuts = gradients.map((g, map) => (g && b[map] ? cut(p, g, run) : null));
  const dNarrow = cuts.flatMap((g, map) => (g ? [p.batchMatMul(g, lanesOf(p, b[map] as Tensor, run), false, true)] : []));
  if (dNarrow.length === 0) return null;
  const total = sumOf(p, dNarrow);
  return { a: lanesOf(p, a, run), dNarrow: total, dA: p.batchMatMul(total, cut(p, x, run), true, false), dB: cuts.map((g) => g && p.batchMatMul(narrow, g, true, false)) };
}

/** The rows of a run, [lanes, count, C]. */
function cut(p: Primitives, x: Tensor, { begin, count, lanes }: LaneRun): Tensor {
  const [rows, width] = [lanes * count, x.dim(1)];
  return p.reshape(rows === x.dim(0) ? x : p.slice(x, [begin, 0], [rows, width]), [lanes, count, width]);
}

/** The lanes of a run. @param x [K, R, C] */
function lanesOf(p: Primitives, x: Tensor, { lane, lanes }: LaneRun): Tensor {
  const [all, rank, width] = x.shape as [number, number, number];
  return lanes === all ? x : p.slice(x, [lane, 0, 0], [lanes, rank, width]);
}

/** What runs of rows get, [lanes, count, C] each, with zeros between them; null where none gets anything. @param like [N, C] */
function lined(p: Primitives, runs: readonly LaneRun[], values: readonly (Tensor | null)[], like: Tensor): Tensor | null {
  const [rows, width] = [like.dim(0), like.dim(1)];
  if (values.every((value) => value === null)) return null;
  const parts: Tensor[] = [];
  let at = 0;
  const fillTo = (end: number): void => {
    if (end > at) parts.push(p.zeros([end - at, width], like.dtype === 'bf16' ? 'bf16' : 'f32'));
    at = Math.max(at, end);
  };
  runs.forEach(({ begin, count, lanes }, index) => {
    const value = values[index];
    if (!value) return;
    invariant(begin >= at && begin + lanes * count <= rows, `rows ${begin} to ${begin + lanes * count} of ${rows}, of which ${at} are taken`);
    fillTo(begin);
    parts.push(p.reshape(value, [lanes * count, width]));
    at = begin + lanes * count;
  });
  fillTo(rows);
  return parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, 0);
}

/** What runs of lanes get, [lanes, R, C] each, as [K, R, C] with zeros for the others; null where none gets anything. @param like [K, R, C] */
function lanesTogether(p: Primitives, runs: readonly (LaneRun & { readonly value: Tensor | null })[], count: number, like: Tensor): Tensor | null {
  const given = runs.filter(({ value }) => value !== null).sort((a, b) => a.lane - b.lane);
  if (given.length === 0) return null;
  const parts: Tensor[] = [];
  let at = 0;
  const fillTo = (end: number): void => {
    if (end > at) parts.push(p.zeros([end - at, like.dim(1), like.dim(2)], like.dtype === 'bf16' ? 'bf16' : 'f32'));
    at = end;
  };
  for (const { lane, lanes, value } of given) {
    fillTo(lane);
    parts.push(value as Tensor);
    at = lane + lanes;
  }
  fillTo(count);
  return parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, 0);
}

function sumOf(p: Primitives, terms: readonly Tensor[]): Tensor {
  const [first, second] = terms as readonly [Tensor, Tensor?];
  if (!second) return first;
  return terms.length === 2 ? p.add(first, second) : p.addAll(terms);
}

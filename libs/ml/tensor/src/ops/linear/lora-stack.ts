import { invariant } from '@tunefleet/foundation';
import type { Device } from '../../device';
import type { FloatDType } from '../../dtype';
import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import type { FrozenMatrix } from './frozen-matrix';
import { outputFactorGradients, type LoraBundle, type LoraUpdate } from './lora-bundle';

/** Low-rank updates of one group by several adapters of equal shapes: one lane each, so that one batched product serves all lanes. */
export interface LoraStack {
  /** [K, R, in] in the compute dtype. */
  readonly a: Tensor;
  /** Per map [K, R, out], the scale included; null where no adapter adds to the map. */
  readonly b: readonly (Tensor | null)[];
  /** What `sourceGradients` reads. */
  readonly held: readonly Tensor[];
  /** Trainable tensors behind it. */
  readonly sources: readonly Tensor[];
  /** @param dA [K, R, in]   @param dB per map [K, R, out]   @returns gradients by the sources, f32 */
  sourceGradients(p: Primitives, dA: Tensor, dB: readonly (Tensor | null)[]): readonly (Tensor | null)[];
}

/** An update that every one of K adapters has, its factors one lane each. */
export interface LaneUpdate {
  /** [K, R, in] f32, trainable. */
  readonly a: Tensor;
  /** Bᵀ, [K, R, rows] f32, trainable. */
  readonly b: Tensor;
  /** [K] */
  readonly scales: readonly number[];
  readonly map: number;
  readonly row: number;
}

/**
 * A stack whose factors are lanes already: it takes the ops that one adapter takes, however many there are.
 * @param weights of the group's maps   @returns tensors of the enclosing scope
 */
export function laneStack(device: Device, updates: readonly LaneUpdate[], weights: readonly FrozenMatrix[], dtype: FloatDType): LoraStack {
  const p = device.primitives;
  return device.scope(() => {
    const factors = updates.map(({ scales }) => scaleTensor(device, scales));
    const ranks = updates.map(({ a }) => a.dim(1));
    const b = weights.map(({ outSize }, map) => {
      if (!updates.some((update) => update.map === map)) return null;
      const zeros = (update: LaneUpdate, columns: number): Tensor[] => (columns > 0 ? [p.zeros([update.a.dim(0), update.a.dim(1), columns], 'f32')] : []);
      const rows = updates.map((update, index) => {
        if (update.map !== map) return zeros(update, outSize)[0] as Tensor;
        return joined(p, [...zeros(update, update.row), p.mul(update.b, factors[index] as Tensor), ...zeros(update, outSize - update.row - update.b.dim(2))], 2);
      });
      return p.cast(joined(p, rows, 1), dtype);
    });
    return {
      a: p.cast(joined(p, updates.map((update) => update.a), 1), dtype),
      b,
      held: factors,
      sources: updates.flatMap((update) => [update.a, update.b]),
      sourceGradients(primitives, dA, dB) {
        const ofInputs = updates.length === 1 ? [dA] : primitives.split(dA, ranks, 1);
        let rank = 0;
        return updates.flatMap(({ b: { shape }, map, row }, index) => {
          const from = rank;
          rank += ranks[index] as number;
          const whole = dB[map];
          const block = whole && (shape.every((size, axis) => size === whole.dim(axis)) ? whole : primitives.slice(whole, [0, from, row], shape));
          return [primitives.cast(ofInputs[index] as Tensor, 'f32'), block ? primitives.mul(primitives.cast(block, 'f32'), factors[index] as Tensor) : null];
        });
      },
    };
  });
}

/** Whether bundles of one group can be lanes of one stack. */
export function stackable(a: LoraBundle, b: LoraBundle): boolean {
  return a.a.dim(0) === b.a.dim(0) && a.b.every((factor, map) => (factor === null) === (b.b[map] === null));
}

/** @param bundles of the same group, `stackable`, with nothing but low-rank updates without dropout   @returns tensors of the enclosing scope */
export function stackBundles(bundles: readonly LoraBundle[]): LoraStack {
  const [first] = bundles as readonly [LoraBundle];
  invariant(bundles.every((each) => stackable(first, each)), 'bundles of unlike shapes in one stack');
  const p = first.a.device.primitives;
  return {
    a: laned(p, bundles.map(({ a }) => a)),
    b: first.b.map((factor, map) => factor && laned(p, bundles.map(({ b }) => b[map] as Tensor))),
    held: [],
    sources: bundles.flatMap(({ updates }) => updates.flatMap(({ a, b, gradientTo }) => [gradientTo?.a ?? a, gradientTo?.b ?? b])),
    sourceGradients: (primitives, dA, dB) =>
      bundles.flatMap(({ updates }, lane) => bundleGradients(primitives, laneOf(primitives, dA, lane), dB.map((each) => each && laneOf(primitives, each, lane)), updates)),
  };
}

function bundleGradients(p: Primitives, dA: Tensor, dB: readonly (Tensor | null)[], updates: readonly LoraUpdate[]): (Tensor | null)[] {
  const ofInputs = updates.length === 1 ? [dA] : p.split(dA, updates.map(({ a }) => a.dim(0)), 0);
  const ofOutputs = outputFactorGradients(p, dB, updates);
  return updates.flatMap((_, index) => [p.cast(ofInputs[index] as Tensor, 'f32'), ofOutputs[index] ?? null]);
}

function laned(p: Primitives, parts: readonly Tensor[]): Tensor {
  const [first] = parts as readonly [Tensor];
  if (parts.length === 1) return p.reshape(first, [1, ...first.shape]);
  using tall = p.concat(parts, 0);
  return p.reshape(tall, [parts.length, ...first.shape]);
}

/** [K, 1, 1], or rank 0 where all are alike. */
function scaleTensor(device: Device, scales: readonly number[]): Tensor {
  const alike = scales.every((scale) => scale === scales[0]);
  return device.tensor(Float32Array.from(alike ? scales.slice(0, 1) : scales), alike ? [] : [scales.length, 1, 1], 'f32');
}

function joined(p: Primitives, parts: readonly Tensor[], axis: number): Tensor {
  return parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, axis);
}

/** [K, R, C] -> [R, C] */
function laneOf(p: Primitives, x: Tensor, lane: number): Tensor {
  const [lanes, rank, width] = x.shape as [number, number, number];
  return p.reshape(lanes === 1 ? x : p.slice(x, [lane, 0, 0], [1, rank, width]), [rank, width]);
}

import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import { outputFactorGradients, type LoraBundle, type LoraUpdate } from './lora-bundle';

/** Low-rank updates of one group by several adapters of equal shapes: one lane each, so that one batched product serves all lanes. */
export interface LoraStack {
  /** [K, R, in] in the compute dtype. */
  readonly a: Tensor;
  /** Per map [K, R, out], the scale included; null where no adapter adds to the map. */
  readonly b: readonly (Tensor | null)[];
  /** Trainable tensors behind it. */
  readonly sources: readonly Tensor[];
  /** @param dA [K, R, in]   @param dB per map [K, R, out]   @returns gradients by the sources, f32 */
  sourceGradients(p: Primitives, dA: Tensor, dB: readonly (Tensor | null)[]): readonly (Tensor | null)[];
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

/** [K, R, C] -> [R, C] */
function laneOf(p: Primitives, x: Tensor, lane: number): Tensor {
  const [lanes, rank, width] = x.shape as [number, number, number];
  return p.reshape(lanes === 1 ? x : p.slice(x, [lane, 0, 0], [1, rank, width]), [rank, width]);
}

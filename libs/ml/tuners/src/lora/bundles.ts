import { invariant } from '@tunefleet/foundation';
import type { NormWeights, ProjectionGroup } from '@tunefleet/ml-nn';
import { bundleLora, linearGroup, type AdaptedHead, type FrozenMatrix, type LoraBundle, type LoraUpdate, type Magnitude, type OutputShift, type Tensor } from '@tunefleet/ml-tensor';
import type { ComposableHook } from '../composition/composable-hook';
import type { BindableModel } from '../tuner';
import { squaresOf } from './squares';
import { embedWith, type EmbeddingParts } from './token-tables';

/** What one target adds to its map. */
export interface LoraFactors {
  readonly updates: readonly Omit<LoraUpdate, 'map' | 'row'>[];
  readonly shifts: readonly Omit<OutputShift, 'map' | 'row'>[];
  /** DoRA's m, [out] f32; shares the dropout of the first update. */
  readonly magnitude: Tensor | null;
}

/** An adapter bound to a model. */
export interface LoraParts {
  readonly bundles: ReadonlyMap<ProjectionGroup, LoraBundle>;
  readonly embedding: EmbeddingParts | null;
  readonly norms: ReadonlyMap<string, NormWeights>;
  readonly head: AdaptedHead | null;
}

/** The factors known by module path, bundled for every group that has any. Tensors of the enclosing scope. */
export function bundleByGroup(model: BindableModel, groups: readonly ProjectionGroup[], byPath: ReadonlyMap<string, LoraFactors>): Map<ProjectionGroup, LoraBundle> {
  const bundles = new Map<ProjectionGroup, LoraBundle>();
  for (const group of groups) {
    const bundle = bundleOf(model, group, byPath);
    if (bundle) bundles.set(group, bundle);
  }
  return bundles;
}

/** Applies bundles to their groups and leaves other groups alone. */
export function loraHook({ bundles, embedding, norms, head }: LoraParts): ComposableHook {
  return {
    changeOf(group) {
      const bundle = bundles.get(group);
      return bundle ? { type: 'low-rank', bundle } : null;
    },
    project(x, group, residual) {
      const lora = bundles.get(group);
      return lora ? linearGroup(x, group.maps, { lora, residual }) : null;
    },
    ...(embedding ? { embed: (embedded: Tensor, ids: Int32Array, scale: number) => embedWith(embedding, embedded, ids, scale), replacedTokens: embedding.table ? 'all' : (embedding.tokens?.indices ?? []) } : {}),
    ...(norms.size > 0 ? { norms } : {}),
    ...(head ? { head } : {}),
  };
}

/** Without what only training needs. */
export function forInference({ bundles, embedding, norms, head }: LoraParts): LoraParts {
  return {
    bundles: new Map([...bundles].map(([group, bundle]) => [group, bundleForInference(bundle)])),
    embedding,
    norms,
    head: head && { table: head.table, lora: head.lora && bundleForInference(head.lora) },
  };
}

/** Every tensor once. */
export function tensorsOf({ bundles, embedding, norms, head }: LoraParts): Tensor[] {
  const ofBundles = [...bundles.values(), ...(head?.lora ? [head.lora] : [])].flatMap(({ a, b, shift, decomposition }) => [a, ...b, ...shift, ...(decomposition?.gains ?? [])]);
  const { table = null, lora = null, tokens = null } = embedding ?? {};
  return [...new Set([...ofBundles, ...[...norms.values()].flatMap(({ weight, bias }) => [weight, bias]), head?.table ?? null, table, lora?.a ?? null, lora?.b ?? null, tokens?.rows ?? null])].filter((tensor) => tensor !== null);
}

/** A map's bias in the base, [out] f32, the caller's. */
export function frozenBias({ device, projectionGroups }: BindableModel, path: string): Tensor {
  const found = projectionGroups.flatMap(({ maps, members }) => members.filter((member) => member.path === path).map(({ map, row, outSize }) => ({ bias: maps[map]?.bias, row, outSize })))[0];
  invariant(found?.bias, `${path} has no bias`);
  const { bias, row, outSize } = found;
  return device.scope(() => device.primitives.cast(device.primitives.slice(bias, [row], [outSize]), 'f32'));
}

function bundleForInference({ a, b, shift, decomposition }: LoraBundle): LoraBundle {
  const none = b.map(() => null);
  return { updates: [], a, b, shifts: [], shift, decomposition: decomposition && { magnitudes: [], gains: decomposition.gains, wideGains: none, norms: none, factors: none } };
}

function bundleOf({ device, computeDtype }: BindableModel, group: ProjectionGroup, byPath: ReadonlyMap<string, LoraFactors>): LoraBundle | null {
  const updates: LoraUpdate[] = [];
  const magnitudes: Magnitude[] = [];
  const shifts: OutputShift[] = [];
  for (const { path, map, row } of group.members) {
    const factors = byPath.get(path);
    if (!factors) continue;
    if (factors.magnitude) magnitudes.push({ magnitude: factors.magnitude, map, row, update: updates.length });
    shifts.push(...factors.shifts.map((shift) => ({ ...shift, map, row })));
    updates.push(...factors.updates.map((update) => ({ ...update, map, row })));
  }
  if (updates.length + shifts.length === 0) return null;
  const weights = group.maps.map(({ weight }) => weight);
  const [{ inSize, outSize }] = weights as [FrozenMatrix];
  const p = device.primitives;
  // A bundle has an update; one of zeros where only biases are trained.
  if (updates.length === 0) updates.push({ a: p.zeros([1, inSize], 'f32'), b: p.zeros([1, outSize], 'f32'), scale: 1, map: 0, row: 0, dropout: null });
  const squares = device.scope(() => weights.map((weight, map) => (magnitudes.some((each) => each.map === map) ? squaresOf(weight) : null)));
  return bundleLora(device, updates, weights, computeDtype, { magnitudes, squares, shifts });
}

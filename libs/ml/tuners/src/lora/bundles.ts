import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { bundleLora, linearGroup, type AdaptedHead, type LoraBundle, type LoraUpdate, type Magnitude, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../tuner';
import { squaresOf } from './squares';
import { embedWith, type EmbeddingParts } from './token-tables';

/** What one target adds to its map. */
export interface LoraFactors {
  readonly updates: readonly Omit<LoraUpdate, 'map' | 'row'>[];
  /** DoRA's m, [out] f32; shares the dropout of the first update. */
  readonly magnitude: Tensor | null;
}

/** An adapter bound to a model. */
export interface LoraParts {
  readonly bundles: ReadonlyMap<ProjectionGroup, LoraBundle>;
  readonly embedding: EmbeddingParts | null;
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
export function loraHook({ bundles, embedding, head }: LoraParts): ModelHook {
  return {
    project(x, group, residual) {
      const lora = bundles.get(group);
      return lora ? linearGroup(x, group.maps, { lora, residual }) : null;
    },
    ...(embedding ? { embed: (embedded: Tensor, ids: Int32Array, scale: number) => embedWith(embedding, embedded, ids, scale) } : {}),
    ...(head ? { head } : {}),
  };
}

/** Without what only training needs. */
export function forInference({ bundles, embedding, head }: LoraParts): LoraParts {
  return {
    bundles: new Map([...bundles].map(([group, bundle]) => [group, bundleForInference(bundle)])),
    embedding,
    head: head && { table: head.table, lora: head.lora && bundleForInference(head.lora) },
  };
}

/** Every tensor once. */
export function tensorsOf({ bundles, embedding, head }: LoraParts): Tensor[] {
  const ofBundles = [...bundles.values(), ...(head?.lora ? [head.lora] : [])].flatMap(({ a, b, decomposition }) => [a, ...b, ...(decomposition?.gains ?? [])]);
  const { table = null, lora = null, tokens = null } = embedding ?? {};
  return [...new Set([...ofBundles, head?.table ?? null, table, lora?.a ?? null, lora?.b ?? null, tokens?.rows ?? null])].filter((tensor) => tensor !== null);
}

function bundleForInference({ a, b, decomposition }: LoraBundle): LoraBundle {
  const none = b.map(() => null);
  return { updates: [], a, b, decomposition: decomposition && { magnitudes: [], gains: decomposition.gains, wideGains: none, norms: none, factors: none } };
}

function bundleOf({ device, computeDtype }: BindableModel, group: ProjectionGroup, byPath: ReadonlyMap<string, LoraFactors>): LoraBundle | null {
  const updates: LoraUpdate[] = [];
  const magnitudes: Magnitude[] = [];
  for (const { path, map, row } of group.members) {
    const factors = byPath.get(path);
    if (!factors) continue;
    if (factors.magnitude) magnitudes.push({ magnitude: factors.magnitude, map, row, update: updates.length });
    updates.push(...factors.updates.map((update) => ({ ...update, map, row })));
  }
  if (updates.length === 0) return null;
  const weights = group.maps.map(({ weight }) => weight);
  const squares = device.scope(() => weights.map((weight, map) => (magnitudes.some((each) => each.map === map) ? squaresOf(weight) : null)));
  return bundleLora(device, updates, weights, computeDtype, { magnitudes, squares });
}

import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { bundleLora, linearGroup, type Dropout, type LoraBundle, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../tuner';
import { squaresOf } from './squares';

/** Factors of one target. */
export interface LoraFactors {
  /** [R, in] f32 */
  readonly a: Tensor;
  /** Bᵀ, [R, out] f32 */
  readonly b: Tensor;
  readonly scale: number;
  readonly dropout: Dropout | null;
  /** DoRA's m, [out] f32. */
  readonly magnitude: Tensor | null;
}

/** The factors known by module path, bundled for every group of the model that has any. Tensors of the enclosing scope. */
export function bundleByGroup(model: BindableModel, byPath: ReadonlyMap<string, LoraFactors>): Map<ProjectionGroup, LoraBundle> {
  const bundles = new Map<ProjectionGroup, LoraBundle>();
  for (const group of model.projectionGroups) {
    const bundle = bundleOf(model, group, byPath);
    if (bundle) bundles.set(group, bundle);
  }
  return bundles;
}

/** Applies bundles to their groups and leaves other groups alone. */
export function loraHook(bundles: ReadonlyMap<ProjectionGroup, LoraBundle>): ModelHook {
  return {
    project(x, group, residual) {
      const lora = bundles.get(group);
      return lora ? linearGroup(x, group.maps, { lora, residual }) : null;
    },
  };
}

/** Without what only training needs. */
export function forInference({ a, b, decomposition }: LoraBundle): LoraBundle {
  const none = (b ?? []).map(() => null);
  return { updates: [], a, b, decomposition: decomposition && { magnitudes: [], gains: decomposition.gains, wideGains: none, norms: none, factors: none } };
}

export function tensorsOf({ a, b, decomposition }: LoraBundle): Tensor[] {
  return [a, ...b, ...(decomposition?.gains ?? [])].filter((tensor) => tensor !== null);
}

function bundleOf({ device, computeDtype }: BindableModel, group: ProjectionGroup, byPath: ReadonlyMap<string, LoraFactors>): LoraBundle | null {
  const updates = group.members.flatMap(({ path, map, row }) => {
    const factors = byPath.get(path);
    return factors ? [{ ...factors, map, row }] : [];
  });
  if (updates.length === 0) return null;
  const weights = group.maps.map(({ weight }) => weight);
  const magnitudes = updates.flatMap(({ magnitude, map, row }, update) => (magnitude ? [{ magnitude, map, row, update }] : []));
  const squares = device.scope(() => weights.map((weight, map) => (magnitudes.some((each) => each.map === map) ? squaresOf(weight) : null)));
  return bundleLora(device, updates, weights, computeDtype, { magnitudes, squares });
}

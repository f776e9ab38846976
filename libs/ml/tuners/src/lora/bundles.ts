import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { bundleLora, linearGroup, type LoraBundle, type LoraUpdate, type Magnitude, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../tuner';
import { squaresOf } from './squares';

/** What one target adds to its map. */
export interface LoraFactors {
  readonly updates: readonly Omit<LoraUpdate, 'map' | 'row'>[];
  /** DoRA's m, [out] f32; shares the dropout of the first update. */
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
  const none = b.map(() => null);
  return { updates: [], a, b, decomposition: decomposition && { magnitudes: [], gains: decomposition.gains, wideGains: none, norms: none, factors: none } };
}

export function tensorsOf({ a, b, decomposition }: LoraBundle): Tensor[] {
  return [a, ...b, ...(decomposition?.gains ?? [])].filter((tensor) => tensor !== null);
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

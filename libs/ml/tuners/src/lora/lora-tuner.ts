import { invariant, philox4x32 } from '@tunefleet/foundation';
import { writeLoraAdapter } from '@tunefleet/ml-formats';
import type { ProjectionGroup, ModelHook } from '@tunefleet/ml-nn';
import { bundleLora, linearGroup, type Dropout, type LoraBundle, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel, DropoutKey, ParameterInfo, Tuner } from '../tuner';
import { loraAdapterFile } from './adapter-file';
import { loraInitialValues } from './initial-values';
import { loraParameterCount, type LoraTarget } from './match';
import type { LoraSpec } from './spec';

/** LoRA on fixed targets. Parameters are A and Bᵀ of the first target, A and Bᵀ of the second, and so on: B is turned so that nothing has to be turned while it trains. */
export class LoraTuner implements Tuner {
  readonly kind = 'lora';
  readonly parameters: readonly ParameterInfo[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: LoraSpec,
    private readonly targets: readonly LoraTarget[],
  ) {
    this.parameters = targets.flatMap(({ path, rank, inSize, outSize }) => [
      { name: `${path}.lora_A.weight`, shape: [rank, inSize] },
      { name: `${path}.lora_B.weight`, shape: [rank, outSize] },
    ]);
    this.parameterCount = loraParameterCount(targets);
  }

  initialValues(seed: number): Float32Array {
    return loraInitialValues(this.spec.init_lora_weights, this.targets, seed);
  }

  bind(model: BindableModel, values: readonly Tensor[], dropout: DropoutKey): ModelHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const rate = this.spec.lora_dropout;
    const bound = this.targets.map(({ path, scale }, index) => {
      const [a, b] = [values[2 * index], values[2 * index + 1]] as [Tensor, Tensor];
      return [path, { a, b, scale, dropout: dropout && rate > 0 ? { rate, key: maskKey(dropout, index) } : null }] as const;
    });
    return loraHook(bundleByGroup(model, new Map(bound)));
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const { adapter, card } = loraAdapterFile(this.spec, this.targets, values, base);
    return writeLoraAdapter(folder, adapter, card);
  }
}

/** Factors of one target. */
export interface LoraFactors {
  /** [R, in] f32 */
  readonly a: Tensor;
  /** Bᵀ, [R, out] f32 */
  readonly b: Tensor;
  readonly scale: number;
  readonly dropout: Dropout | null;
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

function bundleOf({ device, computeDtype }: BindableModel, group: ProjectionGroup, byPath: ReadonlyMap<string, LoraFactors>): LoraBundle | null {
  const updates = group.members.flatMap(({ path, map, row }) => {
    const factors = byPath.get(path);
    return factors ? [{ ...factors, map, row }] : [];
  });
  return updates.length > 0 ? bundleLora(device, updates, group.maps.map(({ weight }) => weight.outSize), computeDtype) : null;
}

/** A mask of its own for every target and step. */
function maskKey([seed, counter]: readonly [number, number], index: number): [number, number] {
  const words = philox4x32([counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, index, 2], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return [words[0] | 0, words[1] | 0];
}

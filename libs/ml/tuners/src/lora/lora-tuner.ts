import { invariant, philox4x32 } from '@tunefleet/foundation';
import { writeLoraAdapter } from '@tunefleet/ml-formats';
import type { ModelHook } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel, DropoutKey, StartContext, Tuner } from '../tuner';
import { loraAdapterFile } from './adapter-file';
import { bundleByGroup, loraHook, type LoraFactors } from './bundles';
import { loraInitialValues } from './initial-values';
import type { LoraTarget } from './match';
import { aOf, bOf, loraParameters, magnitudeOf, sizeOf, type LoraParameter } from './parameters';
import type { LoraSpec } from './spec';

/** LoRA on fixed targets. */
export class LoraTuner implements Tuner {
  readonly kind = 'lora';
  readonly parameters: readonly LoraParameter[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: LoraSpec,
    private readonly targets: readonly LoraTarget[],
  ) {
    this.parameters = loraParameters(spec, targets);
    this.parameterCount = this.parameters.reduce((sum, parameter) => sum + sizeOf(parameter), 0);
  }

  initialValues(seed: number, { model }: StartContext): Float32Array {
    return loraInitialValues(this.spec, this.targets, this.parameters, seed, { model, bundles: (tensors) => this.bundles(model, tensors, null) });
  }

  bind(model: BindableModel, values: readonly Tensor[], dropout: DropoutKey): ModelHook {
    return loraHook(this.bundles(model, values, dropout));
  }

  /** @param values one tensor per parameter   @returns tensors of the enclosing scope */
  bundles(model: BindableModel, values: readonly Tensor[], dropout: DropoutKey): ReturnType<typeof bundleByGroup> {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const byName = new Map(this.parameters.map(({ name }, index) => [name, values[index] as Tensor]));
    const rate = this.spec.lora_dropout;
    const bound = this.targets.map(({ path, scale }, index): [string, LoraFactors] => {
      const [a, b] = [byName.get(aOf(path)), byName.get(bOf(path))] as [Tensor, Tensor];
      return [path, { a, b, scale, magnitude: byName.get(magnitudeOf(path)) ?? null, dropout: dropout && rate > 0 ? { rate, key: maskKey(dropout, index) } : null }];
    });
    return bundleByGroup(model, new Map(bound));
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const { adapter, card } = loraAdapterFile(this.spec, this.targets, this.parameters, values, base);
    return writeLoraAdapter(folder, adapter, card);
  }
}

/** A mask of its own for every target and step. */
function maskKey([seed, counter]: readonly [number, number], index: number): [number, number] {
  const words = philox4x32([counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, index, 2], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return [words[0] | 0, words[1] | 0];
}

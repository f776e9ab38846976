import { invariant, philox4x32 } from '@tunefleet/foundation';
import { writeLoraAdapter } from '@tunefleet/ml-formats';
import type { ProjectionHook } from '@tunefleet/ml-nn';
import { loraLinear, type Device, type Dropout, type LoraFactors, type Tensor } from '@tunefleet/ml-tensor';
import type { DropoutKey, ParameterInfo, Tuner } from '../tuner';
import { loraAdapterFile } from './adapter-file';
import { loraInitialValues } from './initial-values';
import { loraParameterCount, type LoraTarget } from './match';
import type { LoraSpec } from './spec';

/** LoRA on fixed targets. Parameters are A and B of the first target, A and B of the second, and so on. */
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
      { name: `${path}.lora_B.weight`, shape: [outSize, rank] },
    ]);
    this.parameterCount = loraParameterCount(targets);
  }

  initialValues(seed: number): Float32Array {
    return loraInitialValues(this.spec.init_lora_weights, this.targets, seed);
  }

  bind(_device: Device, values: readonly Tensor[], dropout: DropoutKey): ProjectionHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const rate = this.spec.lora_dropout;
    const bound = new Map(
      this.targets.map(({ path, scale }, index) => [
        path,
        {
          factors: { a: values[2 * index], b: values[2 * index + 1], scale } as LoraFactors,
          dropout: dropout && rate > 0 ? { rate, key: maskKey(dropout, index) } : null,
        },
      ]),
    );
    return loraHook(bound);
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const { adapter, card } = loraAdapterFile(this.spec, this.targets, values, base);
    return writeLoraAdapter(folder, adapter, card);
  }
}

/** Applies the factors known for a module's path and leaves other modules alone. */
export function loraHook(bound: ReadonlyMap<string, { readonly factors: LoraFactors; readonly dropout: Dropout | null }>): ProjectionHook {
  return {
    project(x, { path, weight, bias }) {
      const found = bound.get(path);
      return found ? loraLinear(x, weight, bias, found.factors, found.dropout) : null;
    },
  };
}

/** A mask of its own for every target and step. */
function maskKey([seed, counter]: readonly [number, number], index: number): [number, number] {
  const words = philox4x32([counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, index, 2], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return [words[0] | 0, words[1] | 0];
}

import { invariant } from '@tunefleet/foundation';
import { writeAdapterFiles } from '@tunefleet/ml-formats';
import type { ModelHook, Stems } from '@tunefleet/ml-nn';
import { add, cast, mul, scale, tanh, type Tensor } from '@tunefleet/ml-tensor';
import { slotsCount, startOf, type ParameterSlot } from '../named-parameters/parameter-slots';
import { resAdapter } from '../restuning/res-adapter';
import type { ResTuner } from '../restuning/res-adapter-config';
import type { BindableModel, Tuner } from '../tuner';
import { bypassFiles } from './adapter-file';
import { bypassSlots } from './slots';
import type { BypassSpec } from './spec';
import type { BypassBlock, BypassWiring } from './wiring';

/** A network beside the model: it reads hidden states, and what it gives enters the final norm. Computed in f32, as by SWIFT. */
export class BypassTuner implements Tuner {
  readonly kind = 'restuning-bypass';
  readonly parameters: readonly ParameterSlot[];
  readonly parameterCount: number;
  readonly stemStates: readonly number[];

  constructor(
    private readonly spec: BypassSpec,
    private readonly wiring: BypassWiring,
  ) {
    this.parameters = bypassSlots(wiring, 'default');
    this.parameterCount = slotsCount(this.parameters);
    this.stemStates = wiring.states;
  }

  initialValues(seed: number): Float32Array {
    return startOf(this.parameters, seed);
  }

  bind({ computeDtype }: BindableModel, values: readonly Tensor[]): ModelHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    return { bypass: { states: this.stemStates, run: (stems) => cast(runBypass(this.wiring, stems, values), computeDtype) } };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    return writeAdapterFiles(folder, bypassFiles(this.spec, this.wiring, this.parameters, values, base));
  }
}

/** @param values in the order of `bypassSlots`   @returns [N, C] f32, the caller's */
export function runBypass({ root, stems, blocks }: BypassWiring, given: Stems, values: readonly Tensor[]): Tensor {
  const remaining = values.values();
  const take = (): Tensor => {
    const { value } = remaining.next();
    invariant(value, 'the bypass has more parameters than it was given');
    return value;
  };
  const hidden = (state: number): Tensor => {
    const tensor = given[state];
    invariant(tensor, `the model gave no hidden state ${state}`);
    return cast(tensor, 'f32');
  };
  return blocks.reduce((carried, block, index) => runBlock(block, hidden(stems[index] as number), carried, take), hidden(root));
}

/** @param stem [N, C]   @param before [N, C], what the block before gave   @returns [N, C] */
function runBlock({ lateral, vertical, carried, mixed }: BypassBlock, stem: Tensor, before: Tensor, take: () => Tensor): Tensor {
  return stem.device.scope(() => {
    const fromStem = runTuner(lateral, stem, take);
    const tuned = runTuner(vertical, before, take);
    const fromBefore = tuned !== null && carried ? mul(tuned, take()) : tuned;
    return mixed ? mix(fromStem, fromBefore, take()) : sum(fromStem, fromBefore);
  });
}

/** @returns null where the path is dropped */
function runTuner(tuner: ResTuner, x: Tensor, take: () => Tensor): Tensor | null {
  switch (tuner.type) {
    case 'identity':
      return scale(x, 1);
    case 'zero':
      return null;
    case 'adapter':
      return resAdapter(x, tuner, take);
  }
}

function sum(a: Tensor | null, b: Tensor | null): Tensor {
  const one = a ?? b;
  invariant(one, 'a block without paths');
  return a && b ? add(a, b) : one;
}

/** λ a + (1 - λ) b with λ = sigmoid(gate), as (a + b) / 2 + tanh(gate / 2) (a - b) / 2. @param gate rank 0 */
function mix(a: Tensor | null, b: Tensor | null, gate: Tensor): Tensor {
  const half = (x: Tensor | null, sign: number) => x && scale(x, sign / 2);
  return add(sum(half(a, 1), half(b, 1)), mul(sum(half(a, 1), half(b, -1)), tanh(scale(gate, 0.5))));
}

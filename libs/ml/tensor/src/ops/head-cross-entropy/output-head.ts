import { withoutGradients } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { multiplyForward, type FrozenMatrix } from '../linear/frozen-matrix';
import { linear } from '../linear/linear';
import { linearGroup } from '../linear/linear-group';
import type { LoraBundle } from '../linear/lora-bundle';
import { bent } from '../softcap/softcap';

/** From hidden states to logits. */
export interface OutputHead extends FrozenMatrix {
  /** Logits are bent to softcap * tanh(logit / softcap); null or absent: they are not. */
  readonly softcap?: number | null;
  /** What an adapter makes of it, see `ModelHook.head`. */
  readonly adapted?: AdaptedHead | null;
}

export interface AdaptedHead {
  /** [V, C] f32, trainable, in place of the frozen table. */
  readonly table: Tensor | null;
  /** Low-rank updates, with the head as the one map of their group. */
  readonly lora: LoraBundle | null;
}

/** @param hidden [N, C]   @returns [N, V] f32. No gradient recorded. */
export function headLogits(hidden: Tensor, head: OutputHead): Tensor {
  const p = hidden.device.primitives;
  const { softcap = null } = head;
  return withoutGradients(hidden.device, () => {
    using typed = headProduct(hidden, head);
    using logits = p.cast(typed, 'f32');
    typed.dispose();
    return softcap === null ? p.reshape(logits, logits.shape) : bent(p, logits, softcap);
  });
}

/** Logits before the cap, in the dtype of `hidden`; differentiable where the head is adapted. */
export function headProduct(hidden: Tensor, { adapted, ...head }: OutputHead): Tensor {
  if (!adapted) return multiplyForward(hidden, head);
  if (adapted.table) return linear(hidden, adapted.table);
  return linearGroup(hidden, [{ weight: head, bias: null }], { lora: adapted.lora })[0] as Tensor;
}

/** Trainable tensors that a head's logits depend on. */
export function trainedOf({ adapted }: OutputHead): Tensor[] {
  if (!adapted) return [];
  const { updates = [], decomposition = null, shifts = [] } = adapted.lora ?? {};
  const all = [...(adapted.table ? [adapted.table] : []), ...updates.flatMap(({ a, b, gradientTo }) => [gradientTo?.a ?? a, gradientTo?.b ?? b]), ...(decomposition?.magnitudes ?? []).map(({ magnitude }) => magnitude), ...shifts.map(({ value, gradientTo }) => gradientTo ?? value)];
  return [...new Set(all)];
}

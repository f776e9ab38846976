import type { Tensor } from '../../tensor';
import { multiplyForward, type FrozenMatrix } from '../linear/frozen-matrix';
import { bent } from '../softcap/softcap';

/** From hidden states to logits. */
export interface OutputHead extends FrozenMatrix {
  /** Logits are bent to softcap * tanh(logit / softcap); null or absent: they are not. */
  readonly softcap?: number | null;
}

/** @param hidden [N, C]   @returns [N, V] f32. No gradient recorded. */
export function headLogits(hidden: Tensor, head: OutputHead): Tensor {
  using logits = linearLogits(hidden, head);
  return capLogits(logits, head);
}

/** Before the cap, f32. */
export function linearLogits(hidden: Tensor, head: OutputHead): Tensor {
  using typed = multiplyForward(hidden, head);
  return hidden.device.primitives.cast(typed, 'f32');
}

/** The logits themselves, newly held, when the head has no cap. */
export function capLogits(logits: Tensor, { softcap = null }: OutputHead): Tensor {
  const p = logits.device.primitives;
  return softcap === null ? p.reshape(logits, logits.shape) : bent(p, logits, softcap);
}

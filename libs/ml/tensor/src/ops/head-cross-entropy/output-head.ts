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
  const p = hidden.device.primitives;
  using typed = multiplyForward(hidden, head);
  using logits = p.cast(typed, 'f32');
  typed.dispose();
  const { softcap = null } = head;
  return softcap === null ? p.reshape(logits, logits.shape) : bent(p, logits, softcap);
}

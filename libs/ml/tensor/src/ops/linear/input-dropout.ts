import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import type { LoraBundle } from './lora-bundle';

export interface Dropout {
  /** Share of elements dropped, 0 < rate < 1. */
  readonly rate: number;
  /** Names the mask: equal keys give equal masks. */
  readonly key: readonly [number, number];
}

export function dropsInput({ updates }: LoraBundle): boolean {
  return updates.some(({ dropout }) => dropout !== null);
}

/** Of the updates that have dropout, in their order; true where an element stays. */
export function dropoutMasks(p: Primitives, x: Tensor, { updates }: LoraBundle): Tensor[] {
  return updates.flatMap(({ dropout }) => (dropout ? [p.compare('greaterEqual', p.randomUniform(x.shape, dropout.key), x.device.scalar(dropout.rate, 'f32'))] : []));
}

/** Zeroes the masked elements and raises the others, so that the expectation stays. Its own adjoint. @param masks see `dropoutMasks` */
export function dropped(p: Primitives, x: Tensor, { updates }: LoraBundle, masks: readonly Tensor[], index: number): Tensor {
  const dropout = updates[index]?.dropout;
  const mask = masks[updates.slice(0, index).filter((update) => update.dropout).length];
  if (!mask || !dropout) return x;
  return p.scale(p.mul(x, p.cast(mask, x.dtype)), 1 / (1 - dropout.rate));
}

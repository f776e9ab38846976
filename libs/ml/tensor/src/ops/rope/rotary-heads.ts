import { customOp } from '../../tape/perform';
import { isFused } from '../../fused-primitives';
import type { HeadSizes } from '../../fused-ops';
import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import { splitAxis, splitHeads } from '../layout/heads';
import { rope, type RopeTables } from './rope';

export interface QueryKeyValue {
  /** [B, H, T, D] */
  readonly q: Tensor;
  /** [B, K, T, D] */
  readonly k: Tensor;
  readonly v: Tensor;
}

/**
 * Projected queries, keys and values cut into heads, the first two rotated to their positions.
 * @param x [B*T, (H + 2K) * D], side by side in this order
 */
export function rotaryHeads(x: Tensor, sizes: HeadSizes, tables: RopeTables): QueryKeyValue {
  if (!isFused(x) || 'rotation' in tables) return composed(x, sizes, tables);
  const { fused, primitives } = x.device;
  const { cos, sin } = tables;
  const [q, k, v] = customOp(x.device, {
    name: 'rotaryHeads',
    inputs: [x],
    run: () => ({ outputs: fused.rotaryHeads(x, sizes, cos, sin), save: [cos, sin] }),
    backward: ({ gradients: [dq, dk, dv], saved: [cosine, sine] }) => {
      if (!cosine || !sine || !(dq ?? dk ?? dv)) return [null];
      const shapes = shapesOf(x, sizes);
      return [fused.rotaryHeadsGradient(dq ?? zeros(primitives, shapes.q), dk ?? zeros(primitives, shapes.k), dv ?? zeros(primitives, shapes.k), cosine, sine)];
    },
  });
  return { q, k, v } as QueryKeyValue;
}

function composed(x: Tensor, { batch, heads, keyValueHeads }: HeadSizes, tables: RopeTables): QueryKeyValue {
  return x.device.scope(() => {
    const [qk, v] = splitHeads(x, batch, [heads + keyValueHeads, keyValueHeads]) as [Tensor, Tensor];
    const [q, k] = splitAxis(rope(qk, tables), [heads, keyValueHeads], 1) as [Tensor, Tensor];
    return { q, k, v };
  });
}

function shapesOf(x: Tensor, { batch, heads, keyValueHeads }: HeadSizes): { readonly q: readonly number[]; readonly k: readonly number[] } {
  const [time, width] = [x.dim(0) / batch, x.dim(1) / (heads + 2 * keyValueHeads)];
  return { q: [batch, heads, time, width], k: [batch, keyValueHeads, time, width] };
}

function zeros(p: Primitives, shape: readonly number[]): Tensor {
  return p.zeros(shape, 'f32');
}

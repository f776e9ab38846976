import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/** [B*T, H*D] -> [B, H, T, D], as attention wants it. */
export function splitHeads(x: Tensor, batch: number, heads: number): Tensor {
  return singleOutputOp(x.device, {
    name: 'splitHeads',
    inputs: [x],
    run: () => ({ outputs: [split(x, batch, heads)], save: [] }),
    backward: ({ gradients: [g = null] }) => [g && merge(g)],
  });
}

/** [B, H, T, D] -> [B*T, H*D]; the inverse of `splitHeads`. */
export function mergeHeads(x: Tensor): Tensor {
  const [batch = 1, heads = 1] = x.shape;
  return singleOutputOp(x.device, {
    name: 'mergeHeads',
    inputs: [x],
    // Attention keeps its output anyway.
    rematerialise: true,
    run: () => ({ outputs: [merge(x)], save: [] }),
    backward: ({ gradients: [g = null] }) => [g && split(g, batch, heads)],
  });
}

function split(x: Tensor, batch: number, heads: number): Tensor {
  const p = x.device.primitives;
  const [time, width] = [x.dim(0) / batch, x.dim(1) / heads];
  if (time === 1) return p.reshape(x, [batch, heads, 1, width]);
  return p.transpose(p.reshape(x, [batch, time, heads, width]), [0, 2, 1, 3]);
}

function merge(x: Tensor): Tensor {
  const p = x.device.primitives;
  const [batch = 1, heads = 1, time = 1, width = 1] = x.shape;
  const rows = time === 1 ? x : p.transpose(x, [0, 2, 1, 3]);
  return p.reshape(rows, [batch * time, heads * width]);
}

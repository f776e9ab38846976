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
    run: () => ({ outputs: [merge(x)], save: [] }),
    backward: ({ gradients: [g = null] }) => [g && split(g, batch, heads)],
  });
}

function split(x: Tensor, batch: number, heads: number): Tensor {
  const p = x.device.primitives;
  const view = p.reshape(x, [batch, x.dim(0) / batch, heads, x.dim(1) / heads]);
  return p.transpose(view, [0, 2, 1, 3]);
}

function merge(x: Tensor): Tensor {
  const p = x.device.primitives;
  const [batch = 1, heads = 1, time = 1, width = 1] = x.shape;
  return p.reshape(p.transpose(x, [0, 2, 1, 3]), [batch * time, heads * width]);
}

import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/** x * sigmoid(x); computed again rather than kept for the backward pass. @see Elfwing et al. 2017, arXiv:1702.03118 */
export function silu(x: Tensor): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'silu',
    inputs: [x],
    run: () => ({ outputs: [p.silu(x)], save: [x] }),
    rematerialise: ([source]) => (source ? [p.silu(source)] : []),
    backward: ({ gradients: [g], saved: [source] }) => {
      if (!g || !source) return [null];
      const gate = p.unary('sigmoid', source);
      const one = x.device.scalar(1, source.dtype === 'bf16' ? 'bf16' : 'f32');
      const slope = p.mul(gate, p.add(p.sub(source, p.mul(gate, source)), one));
      return [p.mul(g, slope)];
    },
  });
}

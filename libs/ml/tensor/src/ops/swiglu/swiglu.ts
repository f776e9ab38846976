import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * Gated activation y = silu(gate) * up, silu in f32 and rounded once. Cheap, so its output is computed again rather than kept for the backward pass.
 * @param gate [N, F]   @param up [N, F]
 * @see Shazeer 2020, arXiv:2002.05202
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  const p = gate.device.primitives;
  return singleOutputOp(gate.device, {
    name: 'swiglu',
    inputs: [gate, up],
    run: () => ({ outputs: [p.mul(p.cast(p.silu(p.cast(gate, 'f32')), gate.dtype), up)], save: [gate, up] }),
    rematerialise: ([x, y]) => {
      if (!x || !y) return [];
      const wide = p.cast(x, 'f32');
      const sigmoid = p.unary('sigmoid', wide);
      const silu = p.cast(p.mul(wide, sigmoid), x.dtype);
      return [p.mul(silu, y), silu, p.cast(sigmoid, x.dtype)];
    },
    backward: ({ gradients: [g], saved: [x, y], recomputed, needs }) => {
      if (!g || !x || !y) return [null, null];
      const sigmoid = recomputed[2] ?? p.unary('sigmoid', x);
      const silu = recomputed[1] ?? p.mul(x, sigmoid);
      const dUp = needs[1] ? p.mul(g, silu) : null;
      if (!needs[0]) return [null, dUp];
      // silu' = s + silu * (1 - s) = s + silu - silu * s
      const slope = p.sub(p.add(sigmoid, silu), p.mul(silu, sigmoid));
      return [p.mul(p.mul(g, y), slope), dUp];
    },
  });
}

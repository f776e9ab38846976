import { isFused } from '../../fused-primitives';
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
    run: () => {
      const y = isFused(gate) ? gate.device.fused.swiglu(gate, up) : p.mul(p.cast(p.silu(p.cast(gate, 'f32')), gate.dtype), up);
      return { outputs: [y], save: [gate, up] };
    },
    rematerialise: ([x, y]) => {
      if (!x || !y) return [];
      if (isFused(x)) return [x.device.fused.swiglu(x, y)];
      // What is returned lives on while others go backwards, so the rest must not: these are the widest tensors of a layer.
      using wide = p.cast(x, 'f32');
      using sigmoid = p.unary('sigmoid', wide);
      using product = p.mul(wide, sigmoid);
      const silu = p.cast(product, x.dtype);
      return [p.mul(silu, y), silu, p.cast(sigmoid, x.dtype)];
    },
    backward: ({ gradients: [g], saved: [x, y], recomputed, needs }) => {
      if (!g || !x || !y) return [null, null];
      if (isFused(x)) return x.device.fused.swigluGradient(g, x, y);
      const sigmoid = recomputed[2] ?? p.unary('sigmoid', x);
      const silu = recomputed[1] ?? p.mul(x, sigmoid);
      const dUp = needs[1] ? p.mul(g, silu) : null;
      if (!needs[0]) return [null, dUp];
      // silu' = s + silu * (1 - s) = s + silu - silu * s
      using sum = p.add(sigmoid, silu);
      using product = p.mul(silu, sigmoid);
      using slope = p.sub(sum, product);
      sum.dispose();
      product.dispose();
      using gated = p.mul(g, y);
      return [p.mul(gated, slope), dUp];
    },
  });
}

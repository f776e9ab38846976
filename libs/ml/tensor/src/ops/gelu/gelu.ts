import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715;

/**
 * GELU in its tanh form, 0.5 x (1 + tanh(sqrt(2 / π) (x + 0.044715 x³))): `gelu_new` and `gelu_pytorch_tanh` of Transformers. Computed in f32 and rounded once;
 * computed again rather than kept for the backward pass.
 * @see Hendrycks and Gimpel 2016, arXiv:1606.08415
 */
export function geluTanh(x: Tensor): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'geluTanh',
    inputs: [x],
    run: () => ({ outputs: [value(p, x)], save: [x] }),
    rematerialise: ([source]) => (source ? [value(p, source)] : []),
    backward: ({ gradients: [g], saved: [source] }) => (g && source ? [p.mul(g, slope(p, source))] : [null]),
  });
}

/**
 * GELU in its exact form, x Φ(x) with Φ(x) = (1 + erf(x / sqrt(2))) / 2. Computed in f32 and rounded once; computed again rather than kept for the backward pass.
 * @see Hendrycks and Gimpel 2016, arXiv:1606.08415
 */
export function gelu(x: Tensor): Tensor {
  const p = x.device.primitives;
  const forward = (source: Tensor) => {
    const wide = p.cast(source, 'f32');
    return p.cast(p.mul(wide, normalShare(p, wide)), source.dtype);
  };
  return singleOutputOp(x.device, {
    name: 'gelu',
    inputs: [x],
    run: () => ({ outputs: [forward(x)], save: [x] }),
    rematerialise: ([source]) => (source ? [forward(source)] : []),
    backward: ({ gradients: [g], saved: [source] }) => {
      if (!g || !source) return [null];
      const wide = p.cast(source, 'f32');
      const density = p.scale(p.unary('exp', p.scale(p.unary('square', wide), -0.5)), 1 / Math.sqrt(2 * Math.PI));
      return [p.mul(g, p.cast(p.add(normalShare(p, wide), p.mul(wide, density)), g.dtype))];
    },
  });
}

/** Φ(x), for f32. */
function normalShare(p: Primitives, x: Tensor): Tensor {
  using raised = p.unary('erf', p.scale(x, Math.SQRT1_2));
  using sum = p.add(raised, x.device.scalar(1, 'f32'));
  return p.scale(sum, 0.5);
}

/**
 * Gated activation y = geluTanh(gate) * up.
 * @param gate [N, F]   @param up [N, F]
 * @see Shazeer 2020, arXiv:2002.05202
 */
export function geglu(gate: Tensor, up: Tensor): Tensor {
  const p = gate.device.primitives;
  return singleOutputOp(gate.device, {
    name: 'geglu',
    inputs: [gate, up],
    run: () => ({ outputs: [p.mul(value(p, gate), up)], save: [gate, up] }),
    rematerialise: ([x, y]) => {
      if (!x || !y) return [];
      const gelu = value(p, x);
      return [p.mul(gelu, y), gelu];
    },
    backward: ({ gradients: [g], saved: [x, y], recomputed: [, gelu], needs }) => {
      if (!g || !x || !y) return [null, null];
      const dUp = needs[1] ? p.mul(g, gelu ?? value(p, x)) : null;
      return [needs[0] ? p.mul(p.mul(g, y), slope(p, x)) : null, dUp];
    },
  });
}

/** In the dtype of `x`. Frees what it makes on the way: these are the widest tensors of a layer. */
function value(p: Primitives, x: Tensor): Tensor {
  using wide = p.cast(x, 'f32');
  using weight = halfPlusHalf(p, wide);
  using product = p.mul(wide, weight);
  return p.cast(product, x.dtype);
}

/** w + 2 x w (1 - w) u' with w = (1 + tanh(u)) / 2, whose derivative by u is 2 w (1 - w); in the dtype of `x`. */
function slope(p: Primitives, x: Tensor): Tensor {
  using wide = p.cast(x, 'f32');
  using weight = halfPlusHalf(p, wide);
  using bend = bending(p, wide);
  using steep = p.mul(weight, bend);
  using squared = p.mul(steep, weight);
  using rise = p.sub(steep, squared);
  using sum = p.add(weight, rise);
  return p.cast(sum, x.dtype);
}

/** (1 + tanh(u)) / 2 with u = sqrt(2 / π) x (1 + 0.044715 x²): the sigmoid of 2 u. */
function halfPlusHalf(p: Primitives, x: Tensor): Tensor {
  using polynomial = squarePlus(p, x, 2 * SQRT_2_OVER_PI * CUBIC, 2 * SQRT_2_OVER_PI);
  using twice = p.mul(x, polynomial);
  return p.unary('sigmoid', twice);
}

/** 2 x u' */
function bending(p: Primitives, x: Tensor): Tensor {
  using innerSlope = squarePlus(p, x, 6 * SQRT_2_OVER_PI * CUBIC, 2 * SQRT_2_OVER_PI);
  return p.mul(x, innerSlope);
}

/** factor * x² + constant */
function squarePlus(p: Primitives, x: Tensor, factor: number, constant: number): Tensor {
  using squared = p.unary('square', x);
  using scaled = p.scale(squared, factor);
  return p.add(scaled, x.device.scalar(constant, 'f32'));
}

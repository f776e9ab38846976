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
    run: () => ({ outputs: [p.cast(value(p, x), x.dtype)], save: [x] }),
    rematerialise: ([source]) => (source ? [p.cast(value(p, source), source.dtype)] : []),
    backward: ({ gradients: [g], saved: [source] }) => (g && source ? [p.mul(g, p.cast(slope(p, source), g.dtype))] : [null]),
  });
}

/**
 * Gated activation y = geluTanh(gate) * up.
 * @param gate [N, F]   @param up [N, F]
 * @see Shazeer 2020, arXiv:2002.05202
 */
export function geglu(gate: Tensor, up: Tensor): Tensor {
  const p = gate.device.primitives;
  const product = (x: Tensor, y: Tensor) => p.mul(p.cast(value(p, x), x.dtype), y);
  return singleOutputOp(gate.device, {
    name: 'geglu',
    inputs: [gate, up],
    run: () => ({ outputs: [product(gate, up)], save: [gate, up] }),
    rematerialise: ([x, y]) => (x && y ? [product(x, y)] : []),
    backward: ({ gradients: [g], saved: [x, y], needs }) => {
      if (!g || !x || !y) return [null, null];
      const dUp = needs[1] ? p.mul(g, p.cast(value(p, x), g.dtype)) : null;
      return [needs[0] ? p.mul(p.mul(g, y), p.cast(slope(p, x), g.dtype)) : null, dUp];
    },
  });
}

/** In f32. */
function value(p: Primitives, x: Tensor): Tensor {
  const wide = p.cast(x, 'f32');
  return p.mul(p.scale(wide, 0.5), plusOne(p, inner(p, wide)));
}

/** 0.5 (1 + t) + 0.5 x (1 - t²) u', where t = tanh(u); in f32. */
function slope(p: Primitives, x: Tensor): Tensor {
  const wide = p.cast(x, 'f32');
  const t = inner(p, wide);
  const innerSlope = p.scale(plusOne(p, p.scale(p.unary('square', wide), 3 * CUBIC)), SQRT_2_OVER_PI);
  const bend = p.mul(p.mul(wide, p.sub(wide.device.scalar(1, 'f32'), p.unary('square', t))), innerSlope);
  return p.scale(p.add(plusOne(p, t), bend), 0.5);
}

/** tanh(sqrt(2 / π) x (1 + 0.044715 x²)) */
function inner(p: Primitives, x: Tensor): Tensor {
  const polynomial = plusOne(p, p.scale(p.unary('square', x), CUBIC));
  return p.unary('tanh', p.scale(p.mul(x, polynomial), SQRT_2_OVER_PI));
}

function plusOne(p: Primitives, x: Tensor): Tensor {
  return p.add(x, x.device.scalar(1, 'f32'));
}

import type { Primitives } from '../../primitives';
import type { FloatDType } from '../../dtype';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/** a + b, equal shapes and dtypes. */
export function add(a: Tensor, b: Tensor): Tensor {
  return singleOutputOp(a.device, {
    name: 'add',
    inputs: [a, b],
    run: () => ({ outputs: [a.device.primitives.add(a, b)], save: [] }),
    backward: ({ gradients: [g = null] }) => [g, g],
  });
}

/**
 * x * y with y broadcast over rows, or of rank 0.
 * @param x [N, C]   @param y [N, C], [C], [1, C], [N, 1] or [], in any float dtype, computed in that of `x`
 * @returns [N, C] in the dtype of `x`
 */
export function mul(x: Tensor, y: Tensor): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'mul',
    inputs: [x, y],
    run: () => ({ outputs: [p.mul(x, p.cast(y, x.dtype))], save: [x, y] }),
    backward: ({ gradients: [g], saved: [left, right], needs }) => {
      if (!g || !left || !right) return [null, null];
      return [needs[0] ? p.mul(g, p.cast(right, g.dtype)) : null, needs[1] ? summedTo(p, p.mul(g, left), right) : null];
    },
  });
}

/** The gradient of a broadcast factor: summed over what it was spread over, in its own shape and dtype. */
function summedTo(p: Primitives, gradient: Tensor, { shape, dtype }: Tensor): Tensor {
  const wide = p.cast(gradient, 'f32');
  const lead = wide.rank - shape.length;
  const axes = wide.shape.flatMap((size, axis) => (axis < lead || (shape[axis - lead] === 1 && size !== 1) ? [axis] : []));
  return p.cast(p.reshape(axes.length > 0 ? p.reduce('sum', wide, axes) : wide, shape), dtype);
}

/** tanh(x). */
export function tanh(x: Tensor): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'tanh',
    inputs: [x],
    run: () => {
      const y = p.unary('tanh', x);
      return { outputs: [y], save: [y] };
    },
    backward: ({ gradients: [g = null], saved: [y] }) => [g && y ? p.sub(g, p.mul(g, p.unary('square', y))) : null],
  });
}

/** factor * x, for f32 and bf16. */
export function scale(x: Tensor, factor: number): Tensor {
  return singleOutputOp(x.device, {
    name: 'scale',
    inputs: [x],
    run: () => ({ outputs: [x.device.primitives.scale(x, factor)], save: [] }),
    backward: ({ gradients: [g = null] }) => [g && x.device.primitives.scale(g, factor)],
  });
}

/** x in another dtype. */
export function cast(x: Tensor, dtype: FloatDType): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'cast',
    inputs: [x],
    run: () => ({ outputs: [p.cast(x, dtype)], save: [] }),
    backward: ({ gradients: [g = null] }) => [g && p.cast(g, x.dtype)],
  });
}

/** max(x, 0); its slope at 0 is 0. */
export function relu(x: Tensor): Tensor {
  const p = x.device.primitives;
  const zero = (like: Tensor): Tensor => x.device.scalar(0, like.dtype === 'bf16' ? 'bf16' : 'f32');
  return singleOutputOp(x.device, {
    name: 'relu',
    inputs: [x],
    run: () => ({ outputs: [p.binary('maximum', x, zero(x))], save: [x] }),
    backward: ({ gradients: [g], saved: [source] }) => [g && source ? p.select(p.compare('less', zero(source), source), g, zero(g)) : null],
  });
}

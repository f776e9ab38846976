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

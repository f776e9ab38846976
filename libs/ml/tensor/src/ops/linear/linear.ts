import type { Device } from '../../device';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/** A frozen weight matrix, kept the way round that this device multiplies fastest. */
export interface FrozenMatrix {
  readonly value: Tensor;
  /** `outIn`: [out, in], as on disk; `inOut`: transposed. */
  readonly layout: 'outIn' | 'inOut';
  readonly outSize: number;
  readonly inSize: number;
}

/** Takes over `weight` [out, in] (disposed by the holder of the result). */
export function frozenMatrix(device: Device, weight: Tensor): FrozenMatrix {
  const [outSize, inSize] = [weight.dim(0), weight.dim(1)];
  if (!device.backend.prefersUntransposedWeights) return { value: weight, layout: 'outIn', outSize, inSize };
  const value = device.primitives.transpose(weight, [1, 0]);
  weight.dispose();
  return { value, layout: 'inOut', outSize, inSize };
}

/** x Wᵀ: [N, in] -> [N, out]. No gradient recorded. */
export function multiplyForward(x: Tensor, weight: FrozenMatrix): Tensor {
  return x.device.primitives.matMul(x, weight.value, false, weight.layout === 'outIn');
}

/** g W: [N, out] -> [N, in]. No gradient recorded. */
export function multiplyBack(g: Tensor, weight: FrozenMatrix): Tensor {
  return g.device.primitives.matMul(g, weight.value, false, weight.layout === 'inOut');
}

/**
 * Frozen linear map y = x Wᵀ + bias.
 * @param x [N, in] in the weight's dtype   @param bias [out] or null, frozen
 * @returns [N, out]
 */
export function linear(x: Tensor, weight: FrozenMatrix, bias: Tensor | null = null): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'linear',
    inputs: [x],
    run: () => {
      const product = multiplyForward(x, weight);
      return { outputs: [bias ? p.add(product, bias) : product], save: [weight.value] };
    },
    backward: ({ gradients: [g] }) => [g ? multiplyBack(g, weight) : null],
  });
}

import { add, gelu, linear, mul, scale, type Tensor } from '@tunefleet/ml-tensor';
import { ONE, xavier, ZERO, type ParameterSlot } from '../named-parameters/parameter-slots';
import type { ResAdapterConfig } from './res-adapter-config';

/** Of biases at the start. */
const BIAS_DEVIATION = 1e-6;

/** @param path what the names begin with   @param silent W2 and b2 start at zero   @param width C */
export function resAdapterSlots(path: string, width: number, { length, weight }: ResAdapterConfig, silent: boolean): ParameterSlot[] {
  const bias = { type: 'normal', deviation: BIAS_DEVIATION } as const;
  const slots: ParameterSlot[] = [
    { name: `${path}.ln1.weight`, shape: [length, width], start: xavier(width, length) },
    { name: `${path}.ln1.bias`, shape: [length], start: bias },
    { name: `${path}.ln2.weight`, shape: [width, length], start: silent ? ZERO : xavier(length, width) },
    { name: `${path}.ln2.bias`, shape: [width], start: silent ? ZERO : bias },
  ];
  if (weight === 'scale' || weight === 'scale_channel') slots.push({ name: `${path}.scaling`, shape: [weight === 'scale' ? 1 : width], start: ONE });
  return slots;
}

/**
 * weight * (W2 gelu(W1 x + b1) + b2), without a shortcut.
 * @param x [N, C]   @param take gives the parameters in the order of `resAdapterSlots`
 * @returns [N, C] in the dtype of `x`, the caller's
 */
export function resAdapterBranch(x: Tensor, { weight }: ResAdapterConfig, take: () => Tensor): Tensor {
  const [w1, b1, w2, b2] = [take(), take(), take(), take()];
  const branch = linear(gelu(linear(x, w1, b1)), w2, b2);
  if (weight === 'none') return branch;
  return typeof weight === 'object' ? scale(branch, weight.constant) : mul(branch, take());
}

/** x + branch: the shortcut is inside. */
export function resAdapter(x: Tensor, config: ResAdapterConfig, take: () => Tensor): Tensor {
  return add(x, resAdapterBranch(x, config, take));
}

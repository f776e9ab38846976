import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/** Matrices of equally many rows, one beside the other. @param parts [N, C_i]   @returns [N, sum of C_i] */
export function concatColumns(parts: readonly Tensor[]): Tensor {
  const [first] = parts as readonly [Tensor];
  const p = first.device.primitives;
  const sizes = parts.map((part) => part.dim(1));
  return singleOutputOp(first.device, {
    name: 'concatColumns',
    inputs: parts,
    run: () => ({ outputs: [parts.length === 1 ? p.reshape(first, first.shape) : p.concat(parts, 1)], save: [] }),
    backward: ({ gradients: [g] }) => (g ? (parts.length === 1 ? [g] : p.split(g, sizes, 1)) : parts.map(() => null)),
  });
}

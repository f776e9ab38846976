import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/** Matrices of equally many rows, one beside the other. @param parts [N, C_i]   @returns [N, sum of C_i] */
export function concatColumns(parts: readonly Tensor[]): Tensor {
  return concat(parts, 1);
}

/** Matrices of equally many columns, one below the other. @param parts [N_i, C]   @returns [sum of N_i, C] */
export function concatRows(parts: readonly Tensor[]): Tensor {
  return concat(parts, 0);
}

function concat(parts: readonly Tensor[], axis: 0 | 1): Tensor {
  const [first] = parts as readonly [Tensor];
  const p = first.device.primitives;
  const sizes = parts.map((part) => part.dim(axis));
  return singleOutputOp(first.device, {
    name: axis === 0 ? 'concatRows' : 'concatColumns',
    inputs: parts,
    run: () => ({ outputs: [parts.length === 1 ? p.reshape(first, first.shape) : p.concat(parts, axis)], save: [] }),
    backward: ({ gradients: [g] }) => (g ? (parts.length === 1 ? [g] : p.split(g, sizes, axis)) : parts.map(() => null)),
  });
}

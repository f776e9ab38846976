import { outputSquares, type FrozenMatrix, type Tensor } from '@tunefleet/ml-tensor';

/** Weights never change, so this is computed once per matrix; on the host, where nobody has to free it. */
const known = new WeakMap<FrozenMatrix, Float32Array>();

/** Squared row lengths of a frozen matrix, [out] f32, the caller's. */
export function squaresOf(weight: FrozenMatrix): Tensor {
  const { device } = weight.value;
  let squares = known.get(weight);
  if (squares === undefined) {
    using computed = outputSquares(weight);
    squares = device.readFloats(computed).slice();
    known.set(weight, squares);
  }
  return device.tensor(squares.slice(), [weight.outSize], 'f32');
}

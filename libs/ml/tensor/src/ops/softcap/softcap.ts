import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';

/** softcap * tanh(x / softcap), which stays between -softcap and softcap. @param x f32   @see Gemma Team 2024, arXiv:2408.00118, section 2 */
export function bent(p: Primitives, x: Tensor, softcap: number): Tensor {
  using shrunk = p.scale(x, 1 / softcap);
  using curve = p.unary('tanh', shrunk);
  shrunk.dispose();
  return p.scale(curve, softcap);
}

/** Derivative of `bent` where it gave `y`: 1 - (y / softcap)². @param y f32 */
export function slopeAt(p: Primitives, y: Tensor, softcap: number): Tensor {
  using squared = p.unary('square', y);
  using scaled = p.scale(squared, softcap ** -2);
  squared.dispose();
  return p.sub(y.device.scalar(1, 'f32'), scaled);
}

import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';

/** softcap * tanh(x / softcap), which stays between -softcap and softcap. @param x f32   @see Gemma Team 2024, arXiv:2408.00118, section 2 */
export function bent(p: Primitives, x: Tensor, softcap: number): Tensor {
  using curve = tanhOf(p, x, softcap);
  return p.scale(curve, softcap);
}

/** Its derivative, 1 - tanh²(x / softcap). @param x f32 */
export function bentSlope(p: Primitives, x: Tensor, softcap: number): Tensor {
  using curve = tanhOf(p, x, softcap);
  using squared = p.unary('square', curve);
  return p.sub(x.device.scalar(1, 'f32'), squared);
}

function tanhOf(p: Primitives, x: Tensor, softcap: number): Tensor {
  using shrunk = p.scale(x, 1 / softcap);
  return p.unary('tanh', shrunk);
}

import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * A learned mixture, sigmoid(logit) * a + (1 - sigmoid(logit)) * b.
 * @param a [N, C] f32   @param b alike   @param logit rank 0 f32
 */
export function blend(a: Tensor, b: Tensor, logit: Tensor): Tensor {
  const device = a.device;
  const p = device.primitives;
  return singleOutputOp(device, {
    name: 'blend',
    inputs: [a, b, logit],
    run: () => {
      const share = p.unary('sigmoid', logit);
      return { outputs: [p.add(b, p.mul(share, p.sub(a, b)))], save: [a, b, share] };
    },
    backward: ({ gradients: [g], saved: [first, second, share], needs }) => {
      if (!g || !first || !second || !share) return [null, null, null];
      const rest = p.sub(device.scalar(1, 'f32'), share);
      return [
        needs[0] ? p.mul(g, share) : null,
        needs[1] ? p.mul(g, rest) : null,
        needs[2] ? p.mul(p.mul(share, rest), p.sumAll(p.mul(g, p.sub(first, second)))) : null,
      ];
    },
  });
}

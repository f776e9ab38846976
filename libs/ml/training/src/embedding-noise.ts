import { philox4x32 } from '@tunefleet/foundation';
import type { ModelHook } from '@tunefleet/ml-nn';
import { add, type Tensor } from '@tunefleet/ml-tensor';
import type { DropoutKey } from '@tunefleet/ml-tuners';

export interface EmbeddingNoise {
  /** Noise of an example of L tokens and width C is uniform within alpha / sqrt(L C). */
  readonly alpha: number;
  /** [N] L of the example that a token belongs to; 0 for padding, which gets none. */
  readonly lengths: Int32Array;
  /** Equal keys, equal noise. */
  readonly key: NonNullable<DropoutKey>;
}

/**
 * NEFTune: noise on the token embeddings, in training only. It comes after what an adapter makes of them and after the model's own factor, as in Transformers;
 * but L is an example's own length there as well as in packed rows, not the width its batch is padded to.
 * @see Jain et al. 2023, arXiv:2310.05914, algorithm 1; huggingface/transformers `integrations/neftune.py`
 */
export function withEmbeddingNoise(adapter: ModelHook, noise: EmbeddingNoise): ModelHook {
  return { ...adapter, embed: (embedded, ids, scale) => noisy(adapter.embed?.(embedded, ids, scale) ?? embedded, noise) };
}

/** @param x [N, C]   @returns alike */
function noisy(x: Tensor, { alpha, lengths, key }: EmbeddingNoise): Tensor {
  const { device } = x;
  const p = device.primitives;
  return device.scope(() => {
    const bounds = Float32Array.from(lengths, (length) => (length === 0 ? 0 : alpha / Math.sqrt(length * x.dim(1))));
    const signed = p.sub(p.scale(p.randomUniform(x.shape, noiseKey(key)), 2), device.scalar(1, 'f32')); // [N, C] in [-1, 1)
    return add(x, p.cast(p.mul(signed, device.tensor(bounds, [bounds.length, 1], 'f32')), x.dtype));
  });
}

/** Apart from the keys of dropout, which a step's counter gives, too. */
function noiseKey([seed, counter]: readonly [number, number]): [number, number] {
  const words = philox4x32([counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, 0, 3], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return [words[0] | 0, words[1] | 0];
}

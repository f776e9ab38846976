import type { RopeSettings } from './config';

/**
 * Angle per position of each channel pair, [D/2], scaled where the configuration asks for it.
 * @see huggingface/transformers `modeling_rope_utils.py`, `_compute_llama3_parameters` and `_compute_linear_scaling_rope_parameters`
 */
export function inverseFrequencies({ theta, scaling }: RopeSettings, headDim: number): Float64Array {
  const half = headDim / 2;
  const plain = Float64Array.from({ length: half }, (_, j) => theta ** (-j / half));
  if (scaling === null) return plain;
  if (scaling.rope_type === 'linear') return plain.map((frequency) => frequency / scaling.factor);
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: original } = scaling;
  return plain.map((frequency) => {
    const waveLength = (2 * Math.PI) / frequency;
    if (waveLength < original / high) return frequency;
    if (waveLength > original / low) return frequency / factor;
    const smooth = (original / waveLength - low) / (high - low);
    return (1 - smooth) * (frequency / factor) + smooth * frequency;
  });
}

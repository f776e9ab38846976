import type { LlamaConfig } from './spec';

/**
 * Angle per position of each channel pair, [D/2], with the frequency ramp of Llama 3.1 where the configuration asks for it.
 * @see huggingface/transformers `modeling_rope_utils.py`, `_compute_llama3_parameters`
 */
export function inverseFrequencies(config: LlamaConfig): Float64Array {
  const half = config.head_dim / 2;
  const plain = Float64Array.from({ length: half }, (_, j) => config.rope_theta ** (-j / half));
  const scaling = config.rope_scaling;
  if (scaling === null) return plain;
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: original } = scaling;
  return plain.map((frequency) => {
    const waveLength = (2 * Math.PI) / frequency;
    if (waveLength < original / high) return frequency;
    if (waveLength > original / low) return frequency / factor;
    const smooth = (original / waveLength - low) / (high - low);
    return (1 - smooth) * (frequency / factor) + smooth * frequency;
  });
}

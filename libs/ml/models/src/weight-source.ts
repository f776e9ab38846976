/**
 * Where a model's weights come from: a safetensors file, a set of shards, a GGUF file, or memory in tests.
 * Names are those of the Hugging Face checkpoint (`model.layers.0.self_attn.q_proj.weight`); matrices are `[out, in]`.
 */

export type WeightDtype = 'F32' | 'BF16' | 'F16';

export interface WeightInfo {
  readonly shape: readonly number[];
  /** The dtype `load` will return. Packed storage (GGUF blocks) is unpacked by the source and reported as the unpacked dtype. */
  readonly dtype: WeightDtype;
}

export interface WeightData extends WeightInfo {
  /**
   * Row-major little-endian elements, exactly `elements * (F32: 4, BF16 and F16: 2)` bytes. The offset need not be aligned.
   * The caller only reads it, and only until the next call to `load`: a source may reuse one buffer or hand out a view of a mapped file.
   */
  readonly data: Uint8Array;
}

export interface WeightSource {
  /** Every tensor present, in any order. */
  names(): string[];
  /** @throws TunefleetError `incompatible_artifact` naming the tensor when it is absent */
  info(name: string): WeightInfo;
  /** Synchronous; reads one tensor. @throws as `info` */
  load(name: string): WeightData;
}

import { linear, type FrozenMatrix, type Tensor } from '@tunefleet/ml-tensor';

/** A frozen linear map of a model, under the name tuners match against. */
export interface Projection {
  /** Module path in the Hugging Face model: `model.layers.0.self_attn.q_proj`. */
  readonly path: string;
  readonly inSize: number;
  readonly outSize: number;
  /** [out, in]. */
  readonly weight: FrozenMatrix;
  /** [out] or null. */
  readonly bias: Tensor | null;
}

/** What an adapter makes of a model's linear maps. */
export interface ProjectionHook {
  /**
   * @param x [N, in], borrowed
   * @returns [N, out] of the adapted map, the caller's; null: this map is not adapted
   */
  project(x: Tensor, projection: Projection): Tensor | null;
}

/** Applies a projection, adapted where `hook` says so. @returns [N, out], the caller's */
export function project(x: Tensor, projection: Projection, hook: ProjectionHook | null): Tensor {
  return hook?.project(x, projection) ?? linear(x, projection.weight, projection.bias);
}

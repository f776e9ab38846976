import { fusedGated, fusedNormed, linearGroup, type FrozenMap, type Tensor } from '@tunefleet/ml-tensor';
import type { ModelHook } from './model-hook';
import { normalise, rowNorm, type Norm } from './norm';

/** A linear map of a model, under the name tuners match against. */
export interface Projection {
  /** Module path in the Hugging Face model: `model.layers.0.self_attn.q_proj`. */
  readonly path: string;
  readonly inSize: number;
  readonly outSize: number;
  /** Its weight is stored as [in, out] in the checkpoint, as GPT-2's `Conv1D`; adapters say so in their configuration. */
  readonly fanInFanOut?: true;
  /** It adds a bias. */
  readonly biased?: true;
}

/** The token tables of a decoder, by module path. */
export interface TokenTables {
  readonly embedding: string;
  readonly head: string;
  /** The head is the embedding table. */
  readonly tied: boolean;
  /** Learned positions, [rows, C]. */
  readonly positions?: { readonly path: string; readonly rows: number };
}

/** Where a projection lies in its group: output rows `row` to `row + outSize` of one of the group's maps. */
export interface GroupMember extends Projection {
  readonly map: number;
  readonly row: number;
}

/** Frozen linear maps that a model applies to the same input; projections may be stacked into one map. */
export interface ProjectionGroup {
  readonly maps: readonly FrozenMap[];
  readonly members: readonly GroupMember[];
}

/** Applies a group's maps, adapted where `hook` says so. @returns per map [N, out], the caller's */
export function projectGroup(x: Tensor, group: ProjectionGroup, hook: ModelHook | null): readonly Tensor[] {
  return hook?.project?.(x, group, null) ?? linearGroup(x, group.maps);
}

/** A group's maps of norm(x), adapted where `hook` says so. @returns as `projectGroup` */
export function projectNormed(x: Tensor, norm: Norm, group: ProjectionGroup, hook: ModelHook | null): readonly Tensor[] {
  const before = hook?.project ? null : rowNorm(norm, hook);
  const outputs = before && group.maps.map((map) => fusedNormed(x, before, map));
  if (outputs?.every((output) => output !== null)) return outputs;
  return x.device.scope(() => projectGroup(normalise(x, norm, hook), group, hook));
}

/** silu(gate) * up of norm(x), with the two maps of a group; null where there is no op for it. @returns [N, out], the caller's */
export function projectGated(x: Tensor, norm: Norm, { maps }: ProjectionGroup, hook: ModelHook | null): Tensor | null {
  const [gate, up, ...others] = maps;
  const before = hook?.project ? null : rowNorm(norm, hook);
  return before && gate && up && others.length === 0 ? fusedGated(x, before, gate, up) : null;
}

/** residual + the one map of a group. @returns [N, out], the caller's */
export function projectOnto(residual: Tensor, x: Tensor, group: ProjectionGroup, hook: ModelHook | null): Tensor {
  const [output] = hook?.project?.(x, group, residual) ?? linearGroup(x, group.maps, { residual });
  return output as Tensor;
}

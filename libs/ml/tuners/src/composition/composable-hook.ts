import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import type { LoraBundle, Tensor } from '@tunefleet/ml-tensor';

/** A hook that tells how it changes linear maps, so that several can be made into one. */
export interface ComposableHook extends ModelHook {
  /** What `project` does to a group; null: nothing. Borrowed. */
  changeOf(group: ProjectionGroup): GroupChange | null;
  /** Rows of the embedding that the adapter puts its own in place of; `all`: the whole table. */
  readonly replacedTokens?: 'all' | readonly number[];
}

/** Beside each other, by what they do to the base's y = x Wᵀ + bias. */
export type GroupChange =
  /** Gain on x Wᵀ, then low-rank updates and shifts are added. */
  | { readonly type: 'low-rank'; readonly bundle: LoraBundle }
  /** By the path of a member. */
  | { readonly type: 'factors'; readonly byPath: ReadonlyMap<string, ChannelFactor> }
  /** No more is known than what `project` computes. */
  | { readonly type: 'opaque' };

/** One factor per channel of a projection's input or of its output, bias included. */
export interface ChannelFactor {
  readonly side: 'input' | 'output';
  /** [1, in] or [1, out] f32 */
  readonly factor: Tensor;
}

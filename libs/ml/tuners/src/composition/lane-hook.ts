import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import type { LoraStack } from '@tunefleet/ml-tensor';

/** A lane of stacks that several adapters share: what `routeHooks` makes one product of. */
export interface LaneHook extends ModelHook {
  readonly lane: number;
  /** The stack of a group; null: it is not adapted. Borrowed. */
  stackOf(group: ProjectionGroup): LoraStack | null;
}

export function isLaneHook(hook: ModelHook): hook is LaneHook {
  return 'stackOf' in hook;
}

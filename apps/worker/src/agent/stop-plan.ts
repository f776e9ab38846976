import type { AgentSettings } from './settings';

/** `stale`, `cancelled`, `paused`, `preempted` come from the control plane; `lease_lost` and `shutdown` from the agent itself. */
export type StopReason = 'stale' | 'cancelled' | 'paused' | 'preempted' | 'lease_lost' | 'shutdown';

export interface StopPlan {
  /** Nothing of the attempt counts any more: drop its events and uploads. */
  readonly drop: boolean;
  /** Ask the engine for a checkpoint first. */
  readonly checkpoint: boolean;
  readonly killAfterMs: number;
}

const reasons: Readonly<Record<StopReason, { readonly drop: boolean }>> = {
  stale: { drop: true },
  cancelled: { drop: true },
  paused: { drop: false },
  preempted: { drop: false },
  lease_lost: { drop: false },
  shutdown: { drop: false },
};

/** How to stop an attempt, by why it has to stop and how long the control plane grants. */
export function decideStop(reason: StopReason, graceMs: number, settings: Pick<AgentSettings, 'stopMs' | 'checkpointStopMs' | 'checkpointStopMsMax'>): StopPlan {
  const { drop } = reasons[reason];
  if (drop) return { drop, checkpoint: false, killAfterMs: settings.stopMs };
  return { drop, checkpoint: true, killAfterMs: graceMs > 0 ? Math.min(graceMs, settings.checkpointStopMsMax) : settings.checkpointStopMs };
}

/** A reason this version does not know is the safest one: stop and drop. */
export function parseStopReason(text: string): StopReason {
  return Object.hasOwn(reasons, text) ? (text as StopReason) : 'stale';
}

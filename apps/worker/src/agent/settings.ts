import { ENGINE_SILENCE_MS } from '@tunefleet/domain-jobs';
import type { BackoffPolicy } from '@tunefleet/foundation';

/** Times and bounds of the agent. Tests shorten the times. */
export interface AgentSettings {
  /** Nothing heard from the control plane for so long: the session is closed and opened again. Once welcomed, half the lease it speaks of. */
  readonly silenceMs: number;
  /** The engine is stopped this long before the lease ends; a sixth of the lease, where that is less. */
  readonly leaseMarginMs: number;
  /** Full jitter; the first try after a cut is fast. */
  readonly reconnect: BackoffPolicy;
  /** Longest wait between tries while an attempt is running, so that its lease outlives a restart of the control plane. */
  readonly reconnectRunningMaxMs: number;
  /** Retries of artifact transfers. */
  readonly transfer: BackoffPolicy;
  /**
   * How long the engine may take to answer a stop without a checkpoint before it is killed. It looks between two passes through the model, so a
   * cancel takes one pass at the most, and less than two seconds however long a pass is.
   */
  readonly stopMs: number;
  /**
   * The same, at the least, while other runs are in the engine: it is busy with passes of theirs, too, and killing it would cost them what they did since their checkpoints.
   * While they go on speaking it is not killed for one that hangs.
   */
  readonly sharedStopMs: number;
  /** The same with a checkpoint to write, when the control plane grants no other time. */
  readonly checkpointStopMs: number;
  /** The most that the control plane may grant for a checkpoint. */
  readonly checkpointStopMsMax: number;
  /** The whole of a graceful shutdown; the checkpoint gets two thirds of it, its upload the rest. */
  readonly shutdownMs: number;
  /** Restarts of a crashed engine. */
  readonly engineRestart: BackoffPolicy;
  /** How long an engine may take to open its device. */
  readonly engineReadyMs: number;
  /** How long an engine may say nothing of a job before that is given up; after a third of it the job is noted as stuck. */
  readonly engineSilenceMs: number;
}

export const defaultAgentSettings: AgentSettings = {
  silenceMs: 15_000,
  leaseMarginMs: 5_000,
  reconnect: { firstMs: 1_000, factor: 2, maxMs: 60_000 },
  reconnectRunningMaxMs: 3_000,
  transfer: { firstMs: 500, factor: 2, maxMs: 15_000 },
  stopMs: 1_500,
  sharedStopMs: 20_000,
  checkpointStopMs: 20_000,
  checkpointStopMsMax: 600_000,
  shutdownMs: 30_000,
  engineRestart: { firstMs: 500, factor: 2, maxMs: 60_000 },
  engineReadyMs: 120_000,
  engineSilenceMs: ENGINE_SILENCE_MS,
};

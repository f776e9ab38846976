/**
 * Why a running attempt is asked to write a checkpoint and hand its job back. `resumed`: a pause that was taken back before it took effect.
 * None of them is a failure.
 */
export type StopReason = 'paused' | 'resumed' | 'preempted' | 'drained';

/** How long an attempt may take for its checkpoint before its engine is killed. */
export const STOP_GRACE_MS = 120_000;

/** Where a job goes when its attempt has handed it back. */
export function statusAfterStop(reason: StopReason | null): 'paused' | 'queued' {
  return reason === 'paused' ? 'paused' : 'queued';
}

/** For events: why an attempt ended early. */
export const stopReasonTexts: Readonly<Record<StopReason, string>> = {
  paused: 'the job is being paused',
  resumed: 'the job was being paused and is resumed',
  preempted: 'a job of higher rank needs the worker',
  drained: 'the worker is being drained',
};

import type { WaitingCode } from '@tunefleet/contracts';

/** The sentence is the same in API, command line and console, and holds nothing that changes from pass to pass. */
export interface WaitingReason {
  readonly code: WaitingCode;
  readonly text: string;
}

/** A waiting job as its owner sees it. */
export interface WaitingJob extends WaitingReason {
  /** From 1: how many are served up to and with it, if nothing else comes. */
  readonly position: number;
  /** Null: some estimate that it depends on is missing, or it waits for what nobody can foresee. */
  readonly estimatedStartMs: number | null;
}

/** How many and which, for sentences. */
export function counted(count: number, one: string, many: string): string {
  return count === 1 ? `1 worker ${one}` : `${count} workers ${many}`;
}

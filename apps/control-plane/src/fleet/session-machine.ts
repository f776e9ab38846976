import type { AttemptKey, AttemptRecord, WorkerEvent } from '@tunefleet/ports';
import { assertNever, type ErrorCode } from '@tunefleet/foundation';
import type { FinishedInput, HelloInput, WorkerInput } from './worker-input';

/**
 * The life of one worker session as a pure function: `decideSession(state, input)` says what to do, `session.ts` does it.
 *
 *   awaiting_hello --hello--> open --(silence | fenced | shutdown | fault)--> closed
 */
export interface SessionState {
  readonly phase: 'awaiting_hello' | 'open' | 'closed';
  /** Monotonic time of the last message from the worker. */
  readonly heardAtMs: number;
  readonly beatSeq: number;
}

export type SessionInput =
  | { readonly type: 'message'; readonly atMs: number; readonly message: WorkerInput }
  /** Every beat interval. `busy`: a message is being worked on, so silence is ours, not the worker's. */
  | { readonly type: 'tick'; readonly atMs: number; readonly busy: boolean }
  /** Something may be owed to the worker. */
  | { readonly type: 'wake' }
  /** A newer session speaks for this worker. */
  | { readonly type: 'fenced' }
  /** The worker is barred for ever. */
  | { readonly type: 'revoked' }
  | { readonly type: 'shutdown' };

export type SessionCommand =
  | { readonly do: 'register'; readonly hello: HelloInput }
  | { readonly do: 'credit'; readonly jobs: number; readonly modelsOnDisk: readonly string[]; readonly modelInMemory: string | null }
  | { readonly do: 'renew'; readonly keys: readonly AttemptKey[]; readonly memoryBytesFree: number }
  | { readonly do: 'append'; readonly key: AttemptKey; readonly events: readonly WorkerEvent[] }
  | { readonly do: 'finish'; readonly finished: FinishedInput }
  | { readonly do: 'acknowledge'; readonly key: AttemptKey }
  | { readonly do: 'revoke'; readonly key: AttemptKey; readonly reason: string }
  | { readonly do: 'send_owed' }
  | { readonly do: 'send_beat'; readonly seq: number }
  | { readonly do: 'goodbye'; readonly reason: string; readonly reconnectAfterMs: number }
  | { readonly do: 'abort'; readonly code: ErrorCode; readonly message: string };

export interface SessionDecision {
  readonly state: SessionState;
  readonly commands: readonly SessionCommand[];
}

/** Workers come back this long after a planned shutdown; the next replica is up by then or a few tries later. */
const RECONNECT_AFTER_SHUTDOWN_MS = 500;

export function newSessionState(atMs: number): SessionState {
  return { phase: 'awaiting_hello', heardAtMs: atMs, beatSeq: 0 };
}

export function decideSession(state: SessionState, input: SessionInput, silenceMs: number): SessionDecision {
  if (state.phase === 'closed') return { state, commands: [] };
  switch (input.type) {
    case 'message':
      return onMessage({ ...state, heardAtMs: input.atMs }, input.message);
    case 'tick':
      return onTick(state, input, silenceMs);
    case 'wake':
      return { state, commands: state.phase === 'open' ? [{ do: 'send_owed' }] : [] };
    case 'fenced':
      return closed(state, { do: 'goodbye', reason: 'a newer session speaks for this worker', reconnectAfterMs: 0 });
    case 'revoked':
      return closed(state, { do: 'goodbye', reason: 'this worker was revoked', reconnectAfterMs: 0 });
    case 'shutdown':
      return closed(state, { do: 'goodbye', reason: 'the control plane is shutting down', reconnectAfterMs: RECONNECT_AFTER_SHUTDOWN_MS });
    default:
      return assertNever(input, 'session input');
  }
}

function onMessage(state: SessionState, message: WorkerInput): SessionDecision {
  if (state.phase === 'awaiting_hello') {
    if (message.$case !== 'hello') return fault(state, `the first message must be hello, not ${message.$case}`);
    return { state: { ...state, phase: 'open' }, commands: [{ do: 'register', hello: message.value }, { do: 'send_owed' }] };
  }
  switch (message.$case) {
    case 'hello':
      return fault(state, 'hello may be said once per session');
    case 'credit':
      return { state, commands: [{ do: 'credit', ...message.value }] };
    case 'beat':
      return {
        state,
        commands: [{ do: 'renew', keys: message.value.running.map((running) => running.attempt), memoryBytesFree: message.value.memoryBytesFree }],
      };
    case 'events':
      return { state, commands: [{ do: 'append', key: message.value.key, events: message.value.events }] };
    case 'finished':
      return { state, commands: [{ do: 'finish', finished: message.value }] };
    case 'assignAck': {
      const { attempt: key, accepted, reason } = message.value;
      return { state, commands: [accepted ? { do: 'acknowledge', key } : { do: 'revoke', key, reason }] };
    }
    default:
      return assertNever(message, 'worker message');
  }
}

function onTick(state: SessionState, tick: { atMs: number; busy: boolean }, silenceMs: number): SessionDecision {
  if (!tick.busy && tick.atMs - state.heardAtMs > silenceMs) {
    return closed(state, { do: 'abort', code: 'unavailable', message: `nothing was heard from the worker for ${silenceMs} ms` });
  }
  if (state.phase !== 'open') return { state, commands: [] };
  const beatSeq = state.beatSeq + 1;
  return { state: { ...state, beatSeq }, commands: [{ do: 'send_beat', seq: beatSeq }, { do: 'send_owed' }] };
}

function fault(state: SessionState, message: string): SessionDecision {
  return closed(state, { do: 'abort', code: 'invalid_input', message });
}

function closed(state: SessionState, command: SessionCommand): SessionDecision {
  return { state: { ...state, phase: 'closed' }, commands: [command] };
}

export interface RunningMatch {
  /** Live and known on both sides. */
  readonly keep: readonly AttemptKey[];
  /** Live, but its acknowledgement was lost with the earlier stream. */
  readonly acknowledge: readonly AttemptKey[];
  /** The worker runs what is not (or no longer) its own. */
  readonly stop: readonly AttemptKey[];
  /** Ours says it runs there; the worker does not know it: an earlier boot's, or lost within this boot. */
  readonly lost: readonly AttemptRecord[];
}

/** Compares what a Hello says is running with the record's live attempts of that worker. */
export function matchRunning(bootId: string, reported: readonly AttemptKey[], live: readonly AttemptRecord[]): RunningMatch {
  const isSame = (key: AttemptKey, attempt: AttemptRecord): boolean =>
    attempt.id === key.attemptId && attempt.jobId === key.jobId && attempt.epoch === key.epoch && attempt.workerBootId === bootId;
  const known = reported.filter((key) => live.some((attempt) => isSame(key, attempt)));
  const unacknowledged = (key: AttemptKey): boolean => live.some((attempt) => isSame(key, attempt) && attempt.acknowledgedAt === null);
  return {
    keep: known.filter((key) => !unacknowledged(key)),
    acknowledge: known.filter(unacknowledged),
    stop: reported.filter((key) => !known.includes(key)),
    lost: live.filter((attempt) => {
      if (attempt.workerBootId !== bootId) return true;
      // Not acknowledged: its Assign is sent again on this session.
      return attempt.acknowledgedAt !== null && !reported.some((key) => isSame(key, attempt));
    }),
  };
}

import type { Failure, fleet } from '@tunefleet/contracts';
import { assertNever } from '@tunefleet/foundation';
import type { FromEngine } from '../engine-protocol';
import type { EventPayload } from './event-log';

/** The server refuses longer ones; an engine's stack trace must not make a batch unsendable. */
const MAX_MESSAGE_CHARS = 4_000;
const MAX_DATA_CHARS = 32_000;
const MAX_LOG_TAIL = 50;
const MAX_TAIL_LINE_CHARS = 2_000;

/** An engine message as the event that is stored, within the protocol's bounds. */
export function toEventPayload(message: FromEngine & { type: 'log' | 'metrics' | 'progress' }): EventPayload {
  switch (message.type) {
    case 'log':
      return { $case: 'log', value: { level: message.level, message: message.message.slice(0, MAX_MESSAGE_CHARS), dataJson: dataJson(message.data) } };
    case 'metrics':
      return { $case: 'metrics', value: { step: Math.max(0, message.step), values: { ...message.values } } };
    case 'progress':
      return {
        $case: 'progress',
        value: {
          step: Math.max(0, message.step),
          totalSteps: Math.max(0, message.totalSteps),
          phase: message.phase.slice(0, 40),
          tokensPerSecond: Math.max(0, message.tokensPerSecond),
          etaSeconds: Math.max(0, message.etaSeconds),
          microBatchSize: message.microBatchSize ?? 0,
        },
      };
    default:
      return assertNever(message, 'engine event');
  }
}

/** @param recentLines the engine's output, for a failure that brings no log lines itself */
export function toFailed(failure: Failure, recentLines: readonly string[]): NonNullable<fleet.Finished['outcome']> {
  const lines = failure.logTail.length > 0 ? failure.logTail : recentLines;
  return {
    $case: 'failed',
    value: {
      failureClass: failure.class,
      code: failure.code,
      message: failure.message,
      param: failure.param ?? '',
      logTail: lines.slice(-MAX_LOG_TAIL).map((line) => line.slice(0, MAX_TAIL_LINE_CHARS)),
    },
  };
}

/** Objects only: what does not fit the field is left out rather than cut, which would not be JSON. */
function dataJson(data: unknown): string {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return '';
  const json = JSON.stringify(data);
  return json.length <= MAX_DATA_CHARS ? json : '';
}

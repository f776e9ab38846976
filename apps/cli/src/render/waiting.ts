import type { JobSummary } from '@tunefleet/contracts';
import { formatTime, oneLine } from './text';

/** Its turn, when that may come, and why it waits; empty when it does not. */
export function waitingText({ waiting_reason: reason, queue_position: position, estimated_start: start }: Pick<JobSummary, 'waiting_reason' | 'queue_position' | 'estimated_start'>): string {
  const parts = [position === null ? null : `#${position}`, start === null ? null : `starts about ${formatTime(start)}`, reason === null ? null : oneLine(reason)];
  return parts.filter((part) => part !== null).join(' · ');
}

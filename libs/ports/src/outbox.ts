import type { OutboxRecord } from './records';

/** Messages owed to the queue, written in the transaction that caused them. */
export interface Outbox {
  /**
   * Claims up to `limit` unpublished rows (skip locked), hands each to `publish`, and marks those that did not throw.
   * @returns how many were published
   */
  relay(limit: number, publish: (message: OutboxRecord) => Promise<void>): Promise<number>;
  /** Age of the oldest unpublished row in milliseconds, 0 when none. */
  lagMs(): Promise<number>;
}

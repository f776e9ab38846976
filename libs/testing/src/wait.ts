import { sleep } from '@tunefleet/foundation';

const POLL_MS = 50;

/** Waits for a condition, not for a time; the bound only ends a test that would hang. @param detail what was seen last, for the message */
export async function until(what: string, condition: () => Promise<boolean> | boolean, options: { readonly timeoutMs?: number; readonly detail?: () => string } = {}): Promise<void> {
  const timeoutMs = options.timeoutMs ?? 120_000;
  for (const deadline = performance.now() + timeoutMs; !(await condition()); await sleep(POLL_MS)) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s for ${what}${options.detail === undefined ? '' : `; last seen: ${options.detail()}`}`);
  }
}

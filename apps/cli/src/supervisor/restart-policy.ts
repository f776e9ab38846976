/** When a process that died is started again: at once the first time, then twice as late each time, up to a bound. */
export interface RestartPolicy {
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
  /** A process that lived this long is healthy: the count starts again. */
  readonly healthyAfterMs: number;
  /** Deaths in a row, never having been ready, after which it is given up. */
  readonly maxFailedStarts: number;
}

export const DEFAULT_RESTART_POLICY: RestartPolicy = { firstDelayMs: 250, maxDelayMs: 10_000, healthyAfterMs: 30_000, maxFailedStarts: 5 };

export interface ChildHistory {
  /** Deaths since the child last lived long. */
  readonly failures: number;
  readonly everReady: boolean;
}

export type RestartDecision = { readonly kind: 'restart'; readonly delayMs: number; readonly history: ChildHistory } | { readonly kind: 'give_up'; readonly failures: number };

/** What to do about a death. A child that was ready once is restarted for ever: what broke it may heal. */
export function decideRestart(policy: RestartPolicy, history: ChildHistory, uptimeMs: number): RestartDecision {
  const failures = (uptimeMs >= policy.healthyAfterMs ? 0 : history.failures) + 1;
  if (!history.everReady && failures >= policy.maxFailedStarts) return { kind: 'give_up', failures };
  const delayMs = failures === 1 ? 0 : Math.min(policy.maxDelayMs, policy.firstDelayMs * 2 ** (failures - 2));
  return { kind: 'restart', delayMs, history: { ...history, failures } };
}

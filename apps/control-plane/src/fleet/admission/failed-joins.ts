import { TunefleetError, type Clock } from '@tunefleet/foundation';

export interface FailedJoinsRule {
  /** So many failures of one address within the time are answered; then none is looked at until the first of them is that old. */
  readonly failures: number;
  readonly withinMs: number;
}

export const defaultFailedJoinsRule: FailedJoinsRule = { failures: 10, withinMs: 60_000 };

/** Beyond it the address that failed longest ago is forgotten. */
const ADDRESSES_MAX = 10_000;

/** Slows down whoever guesses tokens. Workers that have joined are not asked here: an address that is barred keeps its sessions. */
export class FailedJoins {
  /** Monotonic times of the last failures, oldest first. */
  private readonly byAddress = new Map<string, readonly number[]>();

  constructor(
    private readonly clock: Pick<Clock, 'monotonic'>,
    private readonly rule: FailedJoinsRule = defaultFailedJoinsRule,
  ) {}

  /** @throws capacity while the address has failed too often */
  requireFew(address: string): void {
    const recent = this.recent(address);
    const [first] = recent;
    if (first === undefined || recent.length < this.rule.failures) return;
    const seconds = Math.max(1, Math.ceil((first + this.rule.withinMs - this.clock.monotonic()) / 1_000));
    throw new TunefleetError('capacity', `${recent.length} failed joins from this address within ${this.rule.withinMs / 1_000} s are too many: try again in ${seconds} s`, { reason: 'too_many_failed_joins' });
  }

  add(address: string): void {
    const recent = [...this.recent(address), this.clock.monotonic()].slice(-this.rule.failures);
    // To the end: the map keeps the order in which addresses failed last.
    this.byAddress.delete(address);
    this.byAddress.set(address, recent);
    const [oldest] = this.byAddress.keys();
    if (this.byAddress.size > ADDRESSES_MAX && oldest !== undefined) this.byAddress.delete(oldest);
  }

  private recent(address: string): readonly number[] {
    const since = this.clock.monotonic() - this.rule.withinMs;
    return (this.byAddress.get(address) ?? []).filter((at) => at > since);
  }
}

/** What can go wrong in a simulated world. Counted when it has an effect: a crash of an engine that is down is none. */
export const faultKinds = [
  ...(['worker killed', 'worker shut down', 'worker isolated', 'worker revoked', 'worker clock off by more than a lease'] as const),
  ...(['engine crashed', 'engine hangs', 'run hangs beside others', 'engine out of memory', 'upload met a full disk', 'transfer cut'] as const),
  ...(['stream cut', 'stream swallows', 'message late', 'acknowledgement late', 'message doubled', 'message overtaken by a newer stream'] as const),
  ...(['replica killed', 'replica restarted', 'all replicas away', 'database call failed', 'database answer lost'] as const),
  ...(['wake-up lost', 'wake-up doubled', 'wake-up overtaken', 'queue message lost', 'queue message doubled', 'queue message overtaken'] as const),
] as const;

export type FaultKind = (typeof faultKinds)[number];

export class FaultCounts {
  private readonly counts = new Map<FaultKind, number>();

  add(kind: FaultKind, count = 1): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + count);
  }

  /** In the order of `faultKinds`, without those that did not happen. */
  all(): Readonly<Record<string, number>> {
    return Object.fromEntries(faultKinds.flatMap((kind) => (this.counts.has(kind) ? [[kind, this.counts.get(kind) as number]] : [])));
  }
}

/** Sees when a delivery is overtaken: it comes after one that was sent later. */
export class DeliveryOrder {
  private sent = 0;
  private latest = 0;

  constructor(private readonly overtaken: () => void) {}

  /** @returns to be called when it is delivered */
  send(): () => void {
    const number = ++this.sent;
    return () => {
      if (number < this.latest) this.overtaken();
      this.latest = Math.max(this.latest, number);
    };
  }
}

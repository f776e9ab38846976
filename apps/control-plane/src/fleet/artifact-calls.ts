import { TunefleetError } from '@tunefleet/foundation';

/** The artifact calls under way, by worker: bounded, and ended together when the worker is revoked. */
export class ArtifactCalls {
  private readonly byWorker = new Map<string, Set<AbortController>>();

  constructor(private readonly maxPerWorker: number) {}

  /** @throws capacity when the worker has as many under way as it may */
  async run<T>(workerId: string, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const calls = this.byWorker.get(workerId) ?? new Set();
    if (calls.size >= this.maxPerWorker) throw new TunefleetError('capacity', `worker ${workerId} has ${calls.size} artifact calls under way; the limit is ${this.maxPerWorker}`);
    const controller = new AbortController();
    calls.add(controller);
    this.byWorker.set(workerId, calls);
    try {
      return await call(controller.signal);
    } finally {
      calls.delete(controller);
      if (calls.size === 0) this.byWorker.delete(workerId);
    }
  }

  end(workerId: string, reason: TunefleetError): void {
    for (const call of this.byWorker.get(workerId) ?? []) call.abort(reason);
  }
}

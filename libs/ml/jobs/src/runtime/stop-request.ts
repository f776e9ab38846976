/**
 * A request from outside to end a running job early. Handlers look at it between micro-batches; they must hand the event loop
 * a turn (`yieldToEventLoop`) before they look, or the message never arrives.
 */
export class StopRequest {
  #wanted: { readonly checkpoint: boolean } | null = null;
  readonly #controller = new AbortController();

  /** The first request decides, except that a later one may still give up the checkpoint. */
  request(checkpoint: boolean): void {
    this.#wanted = { checkpoint: checkpoint && (this.#wanted?.checkpoint ?? true) };
    this.#controller.abort();
  }

  /** Aborts with the first request: for downloads and other waits that end with a `cancelled` error. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Null while nobody asked; else whether a checkpoint is to be written first. */
  get wanted(): { readonly checkpoint: boolean } | null {
    return this.#wanted;
  }
}

/** Lets messages, timers and finished I/O in. */
export function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

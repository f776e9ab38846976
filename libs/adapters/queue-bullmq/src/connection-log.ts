import { errorMessage, type Logger } from '@tunefleet/foundation';

const SAME_AGAIN_MS = 300_000;
const REMEMBERED_MAX = 100;

/** Says what goes wrong with a connection once, not at every try to get it back: BullMQ reports each from each of its connections. */
export class ConnectionLog {
  private readonly saidAtMs = new Map<string, number>();

  constructor(private readonly logger: Logger) {}

  failed(error: unknown): void {
    const reason = reasonOf(error);
    const now = performance.now();
    if (now - (this.saidAtMs.get(reason) ?? Number.NEGATIVE_INFINITY) < SAME_AGAIN_MS) return;
    if (this.saidAtMs.size >= REMEMBERED_MAX) this.saidAtMs.clear();
    this.saidAtMs.set(reason, now);
    this.logger.warn({ reason }, 'the queue met an error and goes on trying');
  }

  /** A message went through: the next error is news. */
  recovered(): void {
    if (this.saidAtMs.size === 0) return;
    this.saidAtMs.clear();
    this.logger.info({}, 'the queue works again');
  }
}

/** Refused connections come as an AggregateError without a text. */
export function reasonOf(error: unknown): string {
  const message = errorMessage(error);
  if (message !== '') return message;
  const code: unknown = (error as { code?: unknown }).code;
  return typeof code === 'string' ? code : 'unknown error';
}

import { status, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import { backoffDelayMs, sleep, systemTimers, type Clock, type Logger, type Timer, type Timers } from '@tunefleet/foundation';
import type { Membership } from './membership';
import type { AgentSettings } from './settings';

export type WorkerPayload = NonNullable<fleet.WorkerMessage['message']>;
export type ServerPayload = NonNullable<fleet.ServerMessage['message']>;

export interface ServerLinkOptions {
  readonly client: Pick<fleet.FleetClient, 'session'>;
  readonly membership: Pick<Membership, 'metadata' | 'needsJoin' | 'join' | 'forget'>;
  readonly settings: Pick<AgentSettings, 'silenceMs' | 'reconnect' | 'reconnectRunningMaxMs'>;
  readonly clock: Clock;
  readonly timers?: Timers;
  readonly random?: () => number;
  readonly logger: Logger;
  readonly hello: () => fleet.Hello;
  readonly beat: (seq: number) => fleet.Beat;
  /** True while an attempt's lease depends on coming back soon. */
  readonly isUrgent: () => boolean;
  readonly onWelcome: (welcome: fleet.Welcome) => void;
  readonly onMessage: (message: ServerPayload) => void;
  /** The control plane will not have this worker: its token is wrong, it was revoked, or a newer process speaks for it. */
  readonly onRefused: (reason: string) => void;
}

interface SessionEnd {
  readonly error: ServiceError | null;
  readonly welcomed: boolean;
  readonly goodbye: fleet.Goodbye | null;
}

type Stream = ClientDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>;

/** Holds the one session with the control plane and opens it again, with full jitter, whenever it ends. */
export class ServerLink {
  private stream: Stream | null = null;
  private isWelcomed = false;
  private readonly closing = new AbortController();
  private running: Promise<void> | null = null;
  private readonly timers: Timers;

  constructor(private readonly options: ServerLinkOptions) {
    this.timers = options.timers ?? systemTimers;
  }

  start(): void {
    this.running = this.run();
  }

  get isOpen(): boolean {
    return this.isWelcomed;
  }

  /** False when there is no open session: say it again after the next Welcome. */
  send(message: WorkerPayload): boolean {
    if (this.stream === null || !this.isWelcomed) return false;
    this.stream.write({ message });
    return true;
  }

  async close(): Promise<void> {
    this.closing.abort();
    this.stream?.end();
    this.stream?.cancel();
    await this.running;
  }

  private async run(): Promise<void> {
    const { membership, onRefused } = this.options;
    let failures = 0;
    while (!this.closing.signal.aborted) {
      if (membership.needsJoin) {
        const joined = await membership.join(this.closing.signal);
        if (this.closing.signal.aborted) return;
        if (joined.how === 'refused') return onRefused(joined.reason);
        if (joined.how === 'later') {
          await this.pause(++failures, joined.reason, null);
          continue;
        }
      }
      const { error, welcomed, goodbye } = await this.session();
      if (this.closing.signal.aborted) return;
      if (goodbye !== null && goodbye.reconnectAfterMs === 0) return onRefused(goodbye.reason);
      if (error?.code === status.PERMISSION_DENIED) return onRefused(error.details);
      if (error?.code === status.UNAUTHENTICATED) membership.forget();
      failures = welcomed ? 1 : failures + 1;
      await this.pause(failures, goodbye?.reason ?? error?.details ?? 'the stream ended', goodbye);
    }
  }

  private async pause(failures: number, reason: string, goodbye: fleet.Goodbye | null): Promise<void> {
    const delayMs = this.delayMs(failures, goodbye);
    this.options.logger.warn({ delayMs, failures, reason }, 'no contact with the control plane, trying again');
    await sleep(delayMs, this.closing.signal, this.timers);
  }

  private delayMs(failures: number, goodbye: fleet.Goodbye | null): number {
    const { reconnect, reconnectRunningMaxMs } = this.options.settings;
    const policy = this.options.isUrgent() ? { ...reconnect, maxMs: Math.min(reconnect.maxMs, reconnectRunningMaxMs) } : reconnect;
    return (goodbye?.reconnectAfterMs ?? 0) + backoffDelayMs(policy, failures, this.options.random);
  }

  /** One session from Hello to its end; never rejects. */
  private session(): Promise<SessionEnd> {
    return new Promise((resolve) => {
      const { clock, settings, logger } = this.options;
      const stream: Stream = this.options.client.session(this.options.membership.metadata);
      this.stream = stream;
      let heardAt = clock.monotonic();
      let goodbye: fleet.Goodbye | null = null;
      let beats: Timer | null = null;
      const watchFor = (silenceMs: number): Timer =>
        this.timers.every(Math.max(20, silenceMs / 5), () => {
          if (clock.monotonic() - heardAt <= silenceMs) return;
          logger.warn({ silenceMs }, 'nothing was heard from the control plane');
          stream.cancel();
        });
      let watch = watchFor(settings.silenceMs);
      const end = (error: ServiceError | null): void => {
        if (this.stream !== stream) return;
        watch.cancel();
        beats?.cancel();
        const welcomed = this.isWelcomed;
        this.stream = null;
        this.isWelcomed = false;
        resolve({ error, welcomed, goodbye });
      };
      stream.on('error', (error: ServiceError) => end(error));
      stream.on('end', () => {
        stream.end();
        end(null);
      });
      stream.on('data', ({ message }: fleet.ServerMessage) => {
        if (this.stream !== stream || message === undefined) return;
        heardAt = clock.monotonic();
        if (message.$case === 'goodbye') {
          goodbye = message.value;
          stream.end();
        } else if (message.$case === 'welcome') {
          this.isWelcomed = true;
          if (message.value.leaseMs > 0) {
            watch.cancel();
            watch = watchFor(message.value.leaseMs / 2);
          }
          beats = this.startBeats(stream, message.value.beatIntervalMs);
          this.options.onWelcome(message.value);
        } else {
          this.options.onMessage(message);
        }
      });
      stream.write({ message: { $case: 'hello', value: this.options.hello() } });
    });
  }

  private startBeats(stream: Stream, intervalMs: number): Timer {
    let seq = 0;
    return this.timers.every(Math.max(10, intervalMs), () => {
      if (this.stream === stream) stream.write({ message: { $case: 'beat', value: this.options.beat(++seq) } });
    });
  }
}

import pg from 'pg';
import { backoffDelayMs, errorMessage, sleep, type Logger } from '@tunefleet/foundation';
import type { WakeTopic } from '@tunefleet/ports';
import { Prisma } from '../generated/client';
import type { Statements } from './statements';

export const WAKE_CHANNEL = 'tunefleet_wake';
/** It is silent for long: without keep-alive packets a cut one would not be noticed. */
const CONNECTION = { keepAlive: true, keepAliveInitialDelayMillis: 10_000, connectionTimeoutMillis: 10_000, application_name: 'tunefleet-wake' };
const RECONNECT = { firstMs: 200, factor: 2, maxMs: 10_000 };

/** Announces within the transaction: listeners hear it when (and only if) it commits. */
export async function announce(tx: Pick<Statements, '$executeRaw'>, topic: WakeTopic): Promise<void> {
  await tx.$executeRaw`select ${announcement(topic)}`;
}

/** The same as an expression, for a statement that says something anyway. */
export const announcement = (topic: WakeTopic): Prisma.Sql => Prisma.sql`pg_notify(${WAKE_CHANNEL}, ${topic})`;

interface Listening {
  /** Resolves when the connection has ended. */
  readonly ended: Promise<void>;
}

function isTopic(text: string | undefined): text is WakeTopic {
  return text === 'schedule' || text?.startsWith('worker:') === true || text?.startsWith('revoked:') === true;
}

/**
 * Listens on one connection of its own. When that breaks it comes back by itself and says `schedule` once, because what was
 * announced meanwhile is lost; timers of the loops make up for the rest.
 */
export class WakeChannel {
  private readonly callbacks = new Set<(topic: WakeTopic) => void>();
  private readonly closing = new AbortController();
  private client: pg.Client | undefined;
  /** Whoever subscribes first makes the connection; the others wait for it. */
  private listening: Promise<void> | undefined;
  private running: Promise<void> | undefined;

  constructor(
    private readonly databaseUrl: string,
    private readonly logger: Logger,
  ) {}

  /** Resolves once listening, so that nothing announced after it is missed. */
  async subscribe(callback: (topic: WakeTopic) => void): Promise<{ close(): Promise<void> }> {
    this.callbacks.add(callback);
    try {
      this.listening ??= this.listen();
      await this.listening;
    } catch (error) {
      this.callbacks.delete(callback);
      this.listening = undefined;
      throw error;
    }
    return {
      close: async () => {
        this.callbacks.delete(callback);
      },
    };
  }

  async close(): Promise<void> {
    this.closing.abort();
    this.callbacks.clear();
    await this.listening?.catch(() => undefined);
    await this.client?.end().catch(() => undefined);
    await this.running;
  }

  private async listen(): Promise<void> {
    const first = await this.connect();
    this.running = this.keepListening(first);
  }

  private async connect(): Promise<Listening> {
    const client = new pg.Client({ connectionString: this.databaseUrl, ...CONNECTION });
    const ended = new Promise<void>((resolve) => client.once('end', resolve));
    client.on('error', (error) => this.logger.warn({ reason: error.message }, 'the wake-up connection broke'));
    client.on('notification', ({ payload }) => {
      if (isTopic(payload)) this.tell(payload);
    });
    try {
      await client.connect();
      await client.query(`listen ${WAKE_CHANNEL}`);
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
    this.client = client;
    return { ended };
  }

  private async keepListening(listening: Listening): Promise<void> {
    for (let failures = 0; !this.closing.signal.aborted; ) {
      await listening.ended;
      if (this.closing.signal.aborted) return;
      await sleep(backoffDelayMs(RECONNECT, ++failures), this.closing.signal);
      try {
        listening = await this.connect();
        failures = 0;
        // Closed while connecting: whoever closes ended the connection before this one.
        if (this.closing.signal.aborted) await this.client?.end();
        this.tell('schedule');
      } catch (error) {
        this.logger.warn({ reason: errorMessage(error), failures }, 'could not listen for wake-ups, trying again');
      }
    }
  }

  private tell(topic: WakeTopic): void {
    for (const callback of this.callbacks) {
      try {
        callback(topic);
      } catch (error) {
        this.logger.error({ reason: errorMessage(error), topic }, 'a wake-up callback threw');
      }
    }
  }
}

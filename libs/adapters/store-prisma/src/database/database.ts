import pg from 'pg';
import { PrismaPg } from '@prisma/adapter-pg';
import { TunefleetError, backoffDelayMs, sleep, type Logger } from '@tunefleet/foundation';
import { PrismaClient, type Prisma } from '../generated/client';
import { isConflict, isUnreachable } from './database-errors';
import { statementsOf, type Statements } from './statements';

export type Transaction = Prisma.TransactionClient;

const TRANSACTION_TIMEOUT_MS = 30_000;
const WAIT_FOR_CONNECTION_MS = 15_000;
const CONFLICT_TRIES = 6;
const CONFLICT_BACKOFF = { firstMs: 10, factor: 2, maxMs: 500 };

/** The connection pool, and the one place where transactions are begun and repeated. */
export class Database {
  readonly prisma: PrismaClient;
  /** Each statement is a transaction of its own. For what runs often; the rest reads better with Prisma's methods. */
  readonly statements: Statements;
  private readonly pool: pg.Pool;

  constructor(
    readonly url: string,
    private readonly logger: Logger,
    poolSize: number,
  ) {
    this.pool = new pg.Pool({
      connectionString: url,
      max: poolSize,
      connectionTimeoutMillis: WAIT_FOR_CONNECTION_MS,
      application_name: 'tunefleet-store',
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    });
    // A connection that dies while idle is replaced; without a listener it would end the process.
    this.pool.on('error', (error) => logger.warn({ reason: error.message }, 'a database connection was lost'));
    // The pool stops listening as it hands a connection out, and who gets it begins a moment later: in between, a server that goes down would end the process.
    this.pool.on('connect', (client) => client.on('error', (error) => logger.debug({ reason: error.message }, 'a database connection broke')));
    this.statements = statementsOf((query) => this.withClient((client) => client.query(query)));
    // For the batches that `$transaction` takes as a list, which have no options of their own.
    this.prisma = new PrismaClient({ adapter: new PrismaPg(this.pool), transactionOptions: { timeout: TRANSACTION_TIMEOUT_MS, maxWait: WAIT_FOR_CONNECTION_MS } });
  }

  /**
   * Runs `work` in one transaction (read committed). Deadlocks and serialisation failures are repeated with jitter, so
   * `work` must have no effects beyond the database.
   * @throws unavailable when the database does not answer
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return this.repeating(() => this.prisma.$transaction(work, { timeout: TRANSACTION_TIMEOUT_MS, maxWait: WAIT_FOR_CONNECTION_MS }));
  }

  /** As `transaction`, with statements straight to the driver. */
  atomically<T>(work: (tx: Statements) => Promise<T>): Promise<T> {
    return this.repeating(() =>
      this.withClient(async (client) => {
        await client.query('begin');
        try {
          const result = await work(statementsOf((query) => client.query(query)));
          await client.query('commit');
          return result;
        } catch (error) {
          await client.query('rollback').catch(() => undefined);
          throw error;
        }
      }),
    );
  }

  /** For single statements and reads: the same repetition and the same errors. */
  async repeating<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (isConflict(error) && attempt < CONFLICT_TRIES) {
          this.logger.debug({ attempt }, 'a database transaction met another one, repeating it');
          await sleep(backoffDelayMs(CONFLICT_BACKOFF, attempt));
          continue;
        }
        if (isUnreachable(error)) throw new TunefleetError('unavailable', 'the database does not answer; try again shortly', { cause: error });
        throw error;
      }
    }
  }

  /** A connection that has not answered in time, or on which even the rollback failed, is given up: PostgreSQL undoes what was open on it. */
  private async withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = await this.pool.connect();
    let isGivenUp = false;
    const timer = setTimeout(() => {
      isGivenUp = true;
      client.release(true);
    }, TRANSACTION_TIMEOUT_MS);
    try {
      return await work(client);
    } finally {
      clearTimeout(timer);
      if (!isGivenUp) client.release(client.getTransactionStatus() !== 'I');
    }
  }

  async close(): Promise<void> {
    await this.prisma.$disconnect();
    await this.pool.end();
  }
}

import { Controller, Get, Inject } from '@nestjs/common';
import { errorMessage, TunefleetError, type Logger } from '@tunefleet/foundation';
import type { BlobStore, JobQueue, RecordStore } from '@tunefleet/ports';
import { Operation, Public } from '../http/operation';
import { BLOB_STORE, JOB_QUEUE, LOGGER, RECORD_STORE } from '../tokens';

/** A dependency that says nothing for this long counts as down. */
const PING_TIMEOUT_MS = 3_000;

@Controller()
export class HealthController {
  constructor(
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'ping'>,
    @Inject(JOB_QUEUE) private readonly queue: Pick<JobQueue, 'ping'>,
    @Inject(BLOB_STORE) private readonly blobs: Pick<BlobStore, 'ping'>,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** The process answers. Restarting it because the database is away would help nobody. */
  @Get('healthz')
  @Public()
  @Operation('Whether the process answers')
  health() {
    return { status: 'ok' };
  }

  /** @throws unavailable naming what does not answer */
  @Get('readyz')
  @Public()
  @Operation('Whether database, queue and blob store answer')
  async ready() {
    const parts = { database: this.records, queue: this.queue, blobs: this.blobs };
    const down = await Promise.all(Object.entries(parts).map(async ([name, part]) => ((await this.answers(name, part)) ? [] : [name])));
    const names = down.flat();
    if (names.length > 0) throw new TunefleetError('unavailable', `no answer from: ${names.join(', ')}`, { reason: 'not_ready' });
    return { status: 'ok' };
  }

  private async answers(name: string, part: { ping(): Promise<void> }): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${PING_TIMEOUT_MS} ms`)), PING_TIMEOUT_MS);
    });
    try {
      await Promise.race([part.ping(), timeout]);
      return true;
    } catch (error) {
      this.logger.warn({ part: name, reason: errorMessage(error) }, 'not ready');
      return false;
    } finally {
      clearTimeout(timer);
    }
  }
}

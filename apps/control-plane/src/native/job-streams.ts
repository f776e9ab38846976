import { Inject, Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import type { JobStreamMessage } from '@tunefleet/contracts';
import { sleep, TunefleetError, type Logger } from '@tunefleet/foundation';
import type { RecordStore } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LOGGER, RECORD_STORE } from '../tokens';
import { JobFeed, type FeedPosition } from './job-feed';

/** Readers at a time on one replica; each asks the database a few times a second. */
const STREAMS_MAX = 200;
const POLL_MS = 500;
/** Keeps proxies from closing a quiet connection, and tells the reader that this one is alive. */
const COMMENT_MS = 15_000;
/** Unsent bytes of a reader that does not read, before it is let go; it comes back with its position. */
const UNSENT_BYTES_MAX = 1024 * 1024;

/** Server-sent events about jobs. The record is the source, so a reader may go on at another replica. */
@Injectable()
export class JobStreams implements BeforeApplicationShutdown {
  private readonly open = new Set<AbortController>();

  constructor(
    @Inject(RECORD_STORE) private readonly records: RecordStore,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** Before the server is closed, which waits for its connections. */
  beforeApplicationShutdown(): void {
    for (const stream of this.open) stream.abort();
  }

  /** @throws capacity, invalid_input: before the stream begins */
  async serve(teamId: string, jobId: string, lastEventId: string | undefined, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    if (this.open.size >= STREAMS_MAX) throw new TunefleetError('capacity', `${STREAMS_MAX} event streams are open, the limit of this server: ask again shortly, or poll /api/v1/jobs/${jobId}`);
    const feed = new JobFeed(this.records, teamId, jobId, parsePosition(lastEventId));
    const ending = new AbortController();
    this.open.add(ending);
    const { raw } = reply;
    raw.once('close', () => ending.abort());
    try {
      reply.hijack();
      raw.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache, no-transform',
        // nginx would hold the events back.
        'x-accel-buffering': 'no',
        'x-request-id': request.id,
      });
      raw.write(`retry: ${POLL_MS * 2}\n\n`);
      await this.pump(feed, reply, ending.signal);
    } catch (error) {
      this.logger.warn({ err: error, jobId, requestId: request.id }, 'an event stream broke off');
    } finally {
      this.open.delete(ending);
      raw.end();
    }
  }

  private async pump(feed: JobFeed, { raw }: FastifyReply, signal: AbortSignal): Promise<void> {
    let quietMs = 0;
    while (!signal.aborted) {
      const before = feed.at;
      const messages = await feed.next();
      if (messages === null || signal.aborted) return;
      raw.write(encode(messages, before, feed.at));
      if (messages.at(-1)?.type === 'end') return;
      if (raw.writableLength > UNSENT_BYTES_MAX) {
        raw.destroy();
        return;
      }
      quietMs = messages.length > 0 ? 0 : quietMs + POLL_MS;
      if (quietMs >= COMMENT_MS) {
        raw.write(': alive\n\n');
        quietMs = 0;
      }
      await sleep(POLL_MS, signal);
    }
  }
}

/** Each message carries the position behind it, so that a reader cut off in the middle of a batch loses nothing. */
function encode(messages: readonly JobStreamMessage[], before: FeedPosition, after: FeedPosition): string {
  let position = before;
  return messages
    .map((message) => {
      if (message.type === 'event') position = { ...position, eventId: message.data.id };
      else if (message.type === 'metrics') position = { ...position, step: message.data.step };
      else position = after;
      return `event: ${message.type}\nid: ${formatPosition(position)}\ndata: ${JSON.stringify(message.data)}\n\n`;
    })
    .join('');
}

function formatPosition({ eventId, step }: FeedPosition): string {
  return `${eventId ?? ''}/${step}`;
}

/** @throws invalid_input for what is not an id of this stream */
function parsePosition(lastEventId: string | undefined): FeedPosition {
  if (lastEventId === undefined || lastEventId === '') return { eventId: null, step: -1 };
  const [, eventId, step] = /^(ftevent-\d{1,18})?\/(-1|\d{1,10})$/.exec(lastEventId) ?? [];
  if (step === undefined) throw new TunefleetError('invalid_input', 'the header Last-Event-ID is not an id of this stream: leave it out to begin anew', { reason: 'invalid_value', param: 'Last-Event-ID' });
  return { eventId: eventId ?? null, step: Number(step) };
}

import { jobStreamSchemas, type JobStreamMessage } from '@tunefleet/contracts';
import { TunefleetError, backoffDelayMs, errorCode, sleep, type BackoffPolicy } from '@tunefleet/foundation';
import { errorFromSilence } from '../http/api-error';
import { parseAnswer, path, type CallOptions, type Transport } from '../http/transport';
import { serverSentEvents } from './server-sent-events';

export interface JobStreamOptions extends CallOptions {
  /** Go on behind this event. */
  readonly lastEventId?: string;
  /** Silence after which the connection is taken for dead; the server sends a comment every 15 s. Default 45 000. */
  readonly silenceMs?: number;
}

/** Connections without any message in a row, after which the stream is given up. */
const FRUITLESS_MAX = 5;
const SILENCE_DEFAULT_MS = 45_000;
const BACKOFF: BackoffPolicy = { firstMs: 200, factor: 2, maxMs: 2_000 };

/**
 * A job's messages until its end, over as many connections as it takes; each goes on where the last one broke off.
 * @throws unavailable when five connections in a row brought nothing; cancelled when the signal aborts; what the server refuses (not_found, …)
 */
export async function* jobStream(transport: Transport, jobId: string, options: JobStreamOptions): AsyncGenerator<JobStreamMessage> {
  const cursor = { lastEventId: options.lastEventId ?? '' };
  for (let fruitless = 0; ; ) {
    let failure: unknown;
    try {
      for await (const message of oneConnection(transport, jobId, options, cursor)) {
        fruitless = 0;
        yield message;
        if (message.type === 'end') return;
      }
    } catch (error) {
      if (options.signal?.aborted) throw new TunefleetError('cancelled', `watching ${jobId} was stopped`, { cause: error });
      failure = error;
      const known = errorCode(error);
      if (known !== undefined && known !== 'unavailable' && known !== 'capacity') throw error;
    }
    fruitless += 1;
    if (fruitless >= FRUITLESS_MAX) {
      throw new TunefleetError('unavailable', `the event stream of ${jobId} broke off ${fruitless} times without a message`, { cause: failure });
    }
    await sleep(backoffDelayMs(BACKOFF, fruitless), options.signal);
  }
}

async function* oneConnection(transport: Transport, jobId: string, options: JobStreamOptions, cursor: { lastEventId: string }): AsyncGenerator<JobStreamMessage> {
  const where = path('/api/v1', 'jobs', jobId, 'events', 'stream');
  const silence = new AbortController();
  const signal = options.signal === undefined ? silence.signal : AbortSignal.any([options.signal, silence.signal]);
  const silenceMs = options.silenceMs ?? SILENCE_DEFAULT_MS;
  const response = await transport.open({
    path: where,
    signal,
    headers: { accept: 'text/event-stream', ...(cursor.lastEventId === '' ? {} : { 'last-event-id': cursor.lastEventId }) },
  });
  if (response.body === null || response.headers.get('content-type')?.startsWith('text/event-stream') !== true) {
    await response.body?.cancel();
    throw new TunefleetError('unavailable', `${where} did not answer with an event stream`);
  }
  const timer = setTimeout(() => silence.abort(new Error(`nothing came for ${silenceMs} ms`)), silenceMs);
  try {
    for await (const { event, data, id } of serverSentEvents(asUnavailable(response.body), () => timer.refresh())) {
      const message = messageOf(event, data, where);
      if (message !== null) yield message;
      // Afterwards: a message the reader never got must come again.
      if (id !== '') cursor.lastEventId = id;
    }
  } finally {
    clearTimeout(timer);
    // Frees the socket also when the reader walks away.
    silence.abort();
  }
}

/** A connection cut in the middle is an error of the network, not a bug. */
async function* asUnavailable(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* body as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw errorFromSilence(error);
  }
}

/** Null for events of a later version of the server. */
function messageOf(event: string, data: string, where: string): JobStreamMessage | null {
  if (!Object.hasOwn(jobStreamSchemas, event)) return null;
  const type = event as keyof typeof jobStreamSchemas;
  return { type, data: parseAnswer(jobStreamSchemas[type], data, { path: where }) } as JobStreamMessage;
}

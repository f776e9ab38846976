import { TunefleetError } from '@tunefleet/foundation';

export interface ServerSentEvent {
  /** `message` where the server names none. */
  readonly event: string;
  readonly data: string;
  /** The last id sent so far; empty before the first. */
  readonly id: string;
}

/** An event beyond this is refused: the stream is not ours. */
const EVENT_CHARACTERS_MAX = 1024 * 1024;

/**
 * Splits a `text/event-stream` into its events; comments and retry hints are left out, an unfinished event at the end is dropped.
 * @param onActivity called for every chunk, comments included
 * @see WHATWG HTML, section 9.2.6 "Interpreting an event stream"
 */
export async function* serverSentEvents(chunks: AsyncIterable<Uint8Array>, onActivity: () => void = () => undefined): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  let event = '';
  let data: string[] = [];
  let id = '';
  for await (const chunk of chunks) {
    onActivity();
    rest += decoder.decode(chunk, { stream: true });
    // A carriage return at the very end may be the first half of a line end.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) yield { event: event === '' ? 'message' : event, data: data.join('\n'), id };
        event = '';
        data = [];
        continue;
      }
      const { name, value } = fieldOf(line);
      if (name === 'event') event = value;
      if (name === 'data') data.push(value);
      if (name === 'id' && !value.includes('\0')) id = value;
    }
    if (rest.length > EVENT_CHARACTERS_MAX) throw new TunefleetError('unavailable', `the event stream holds a line of more than ${EVENT_CHARACTERS_MAX} characters`);
  }
}

function fieldOf(line: string): { readonly name: string; readonly value: string } {
  const colon = line.indexOf(':');
  if (colon === -1) return { name: line, value: '' };
  const value = line.slice(colon + 1);
  return { name: line.slice(0, colon), value: value.startsWith(' ') ? value.slice(1) : value };
}

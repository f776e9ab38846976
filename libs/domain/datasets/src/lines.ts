/** Longest row accepted. */
export const LINE_BYTES_MAX = 8 * 1024 * 1024;

export interface Line {
  /** From 1, blank lines counted. */
  readonly number: number;
  /** Null when the line could not be read; `fault` says why. */
  readonly text: string | null;
  readonly fault: 'line_too_long' | 'invalid_utf8' | null;
}

const LINE_FEED = 10;

/**
 * Splits a byte stream into lines with bounded memory. Blank lines are left out, a byte order mark and carriage returns at line ends are removed.
 * A line that is too long is skipped to its end and reported, not kept.
 */
export async function* splitLines(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, lineBytesMax = LINE_BYTES_MAX): AsyncGenerator<Line> {
  let number = 0;
  let parts: Uint8Array[] = [];
  let bytes = 0;
  const finish = (): Line | null => {
    number += 1;
    const line = bytes > lineBytesMax ? { number, text: null, fault: 'line_too_long' as const } : decode(parts, bytes, number);
    parts = [];
    bytes = 0;
    return line.text?.trim() === '' ? null : line;
  };
  const keep = (piece: Uint8Array): void => {
    bytes += piece.length;
    if (bytes > lineBytesMax) parts = [];
    else if (piece.length > 0) parts.push(piece);
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
      keep(chunk.subarray(start, end));
      const line = finish();
      if (line !== null) yield line;
      start = end + 1;
    }
    // Streams may reuse their buffer once asked for the next chunk.
    keep(chunk.slice(start));
  }
  if (bytes > 0) {
    const line = finish();
    if (line !== null) yield line;
  }
}

function decode(parts: readonly Uint8Array[], bytes: number, number: number): Line {
  const whole = new Uint8Array(bytes);
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: number !== 1 }).decode(whole);
    return { number, text: text.endsWith('\r') ? text.slice(0, -1) : text, fault: null };
  } catch {
    return { number, text: null, fault: 'invalid_utf8' };
  }
}

import { isTunefleetError, errorMessage, type Logger } from '@tunefleet/foundation';

/**
 * Where a command writes. Results go to standard output (with `--json`: one JSON document, or one a line for streams);
 * everything said beside them goes to standard error, so that a pipe gets only results.
 */
export interface Output {
  readonly json: boolean;
  /** A terminal that can redraw lines. */
  readonly interactive: boolean;
  /** Columns of the terminal; 80 where there is none. */
  readonly columns: () => number;
  result(value: unknown, text: () => string): void;
  /** One value of a stream of results. */
  item(value: unknown, text: () => string | null): void;
  note(text: string): void;
  /** Bytes as they are. */
  raw(text: string): void;
}

export function processOutput(options: { readonly json: boolean }): Output {
  const { stdout, stderr } = process;
  return {
    json: options.json,
    interactive: !options.json && stdout.isTTY === true && process.env['TERM'] !== 'dumb' && !process.env['CI'],
    columns: () => stdout.columns ?? 80,
    result: (value, text) => stdout.write(`${options.json ? JSON.stringify(value, null, 2) : text()}\n`),
    item: (value, text) => {
      const line = options.json ? JSON.stringify(value) : text();
      if (line !== null) stdout.write(`${line}\n`);
    },
    note: (text) => stderr.write(`${text}\n`),
    raw: (text) => stdout.write(text),
  };
}

/** What a failed command says: the message, and where the server says more about itself, its codes. */
export function describeError(error: unknown, json: boolean): string {
  const message = errorMessage(error);
  if (!json) return `tunefleet: ${message}`;
  const facts = isTunefleetError(error) ? { code: error.reason ?? error.code, param: error.param ?? null } : { code: null, param: null };
  return JSON.stringify({ error: { message, ...facts } });
}

/** A logger for people: warnings and errors as notes, with the name of the process they are about. */
export function noteLogger(output: Output): Logger {
  const say = (fields: object, message: string): void => output.note('child' in fields ? `${String(fields.child)}: ${message}` : message);
  const logger: Logger = { debug: () => undefined, info: () => undefined, warn: say, error: say, child: () => logger };
  return logger;
}

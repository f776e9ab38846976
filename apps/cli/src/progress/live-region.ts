const CLEAR_LINE = '\u001b[2K';
const CLEAR_BELOW = '\u001b[J';

export interface TerminalWriter {
  write(text: string): void;
  columns(): number;
}

/**
 * The last lines of a terminal, redrawn in place. Lines are cut to the terminal's width: a wrapped line would take two rows and
 * the next redraw would leave one of them behind. Everything else that is printed meanwhile goes through `print`.
 */
export class LiveRegion {
  #lines: readonly string[] = [];
  #drawn = 0;

  constructor(private readonly terminal: TerminalWriter) {}

  update(lines: readonly string[]): void {
    this.#lines = lines;
    this.terminal.write(this.#erase() + this.#draw());
  }

  /** A line that stays, above the region. */
  print(line: string): void {
    this.terminal.write(`${this.#erase()}${line}\n${this.#draw()}`);
  }

  /** Leaves the last state on the screen, or removes it. */
  close(options: { readonly keep: boolean }): void {
    if (!options.keep) this.#lines = [];
    this.terminal.write(this.#erase() + this.#draw());
    this.#lines = [];
    this.#drawn = 0;
  }

  /** To the first line of the region, with it and all below gone. */
  #erase(): string {
    const up = this.#drawn > 0 ? `\u001b[${this.#drawn}A` : '';
    return `${up}\r${CLEAR_BELOW}`;
  }

  #draw(): string {
    const width = Math.max(1, this.terminal.columns() - 1);
    this.#drawn = this.#lines.length;
    return this.#lines.map((line) => `${CLEAR_LINE}${[...line].slice(0, width).join('')}\n`).join('');
  }
}

/** Progress for people: one line per step; on a terminal the running step rewrites its line, elsewhere it prints only when done. */
export function createReporter({ stream = process.stderr, quiet = false } = {}) {
  const live = Boolean(stream.isTTY) && !quiet;
  const write = (text) => {
    if (!quiet) stream.write(text);
  };
  return {
    /** Opens a step's line. `update` may be called often; `done` and `skip` close it. */
    step(title) {
      const startedAt = Date.now();
      let lastDraw = 0;
      if (live) write(`  ${title} …`);
      return {
        update(detail, fraction) {
          if (!live || Date.now() - lastDraw < 100) return;
          lastDraw = Date.now();
          write(`\r\x1b[K  ${title} ${fraction === undefined ? '…' : bar(fraction)} ${detail}`);
        },
        /** For what takes minutes: also says so where nothing is redrawn. */
        announce(detail) {
          if (live) this.update(detail);
          else write(`  ${title}: ${detail}\n`);
        },
        done(detail) {
          const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
          write(`${live ? '\r\x1b[K' : ''}✓ ${title}: ${detail} (${seconds} s)\n`);
        },
        warn(message) {
          stream.write(`${live ? '\r\x1b[K' : ''}! ${title}: ${message}\n`);
        },
        fail(message) {
          stream.write(`${live ? '\r\x1b[K' : ''}✗ ${title}: ${message}\n`);
        },
      };
    },
    note(message) {
      write(`${message}\n`);
    },
  };
}

function bar(fraction, width = 24) {
  const full = Math.max(0, Math.min(width, Math.round(fraction * width)));
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}] ${Math.round(fraction * 100)} %`;
}

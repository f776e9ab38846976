import fc from 'fast-check';
import type { JobStreamMessage, JobSummary } from '@tunefleet/contracts';
import { ManualClock } from '@tunefleet/foundation';
import type { Output } from '../render/output';
import { formatTime } from '../render/text';
import { afterMessage, emptyJobView, endLines, liveLines } from './job-view';
import { LiveRegion } from './live-region';
import { progressBar } from './progress-bar';
import { sparkline } from './sparkline';
import { watchJob } from './watch-job';

const job: JobSummary = {
  id: 'ftjob-1',
  object: 'job',
  kind: 'fine-tune',
  status: 'running',
  base_model: 'tiny',
  priority: 0,
  metadata: null,
  created_at: 100,
  queued_at: 101,
  started_at: 102,
  finished_at: null,
  estimated_finish: 162,
  step: 5,
  total_steps: 10,
  phase: 'train',
  tokens_per_second: 1234.5,
  waiting_reason: null,
  waiting_code: null,
  queue_position: null,
  estimated_start: null,
  worker_selector: {},
  memory_bytes_estimate: null,
  may_share_worker: null,
  after: [],
  source: null,
  stop_requested: null,
  error: null,
};

const metrics = (step: number, loss: number): JobStreamMessage => ({ type: 'metrics', data: { step, values: { train_loss: loss } } });

test('a bar is always as wide as asked, and full only at the end', () => {
  fc.assert(
    fc.property(fc.double({ min: -1, max: 2, noNaN: true }), fc.integer({ min: 1, max: 200 }), (share, width) => {
      expect([...progressBar(share, width)]).toHaveLength(width);
    }),
  );
  expect(progressBar(1, 4)).toBe('████');
  expect(progressBar(0.5, 4)).toBe('██░░');
  expect(progressBar(0.99, 4)).not.toBe('████');
});

test('a curve fits its width, from the highest to the lowest bar', () => {
  expect(sparkline([4, 3, 2, 1], 4)).toBe('█▆▃▁');
  expect([...sparkline(Array.from({ length: 1000 }, (_, i) => -i), 40)]).toHaveLength(40);
  expect(sparkline([2, 2], 10)).toBe('▁▁');
  expect(sparkline([Number.NaN], 10)).toBe('');
});

test('metrics that come again after a reconnect are counted once', () => {
  const view = [metrics(1, 4), metrics(2, 3), metrics(2, 3), metrics(3, 2)].reduce(afterMessage, emptyJobView);
  expect(view.losses).toEqual([4, 3, 2]);
  expect(view.lastLoss).toBe(2);
});

test('the curve of a long job stays bounded and covers all of it', () => {
  let view = emptyJobView;
  for (let step = 0; step < 10_000; step++) view = afterMessage(view, metrics(step, step));
  expect(view.losses.length).toBeLessThan(512);
  expect(view.losses[0]).toBe(0);
  expect(view.losses.at(-1)).toBeGreaterThan(9_900);
  expect(view.lastLoss).toBe(9_999);
});

test('a running job shows step, loss, speed and time left', () => {
  const view = [{ type: 'job', data: job } as const, metrics(4, 2.5), metrics(5, 2.25)].reduce(afterMessage, emptyJobView);
  const lines = liveLines(view, 132_000, 100);
  expect(lines[0]).toBe('ftjob-1  running · train');
  expect(lines[1]).toMatch(/^█+░+ 5\/10 {2}loss 2\.2500 {2}1,235 tok\/s {2}ETA 30s$/);
  expect(lines[2]).toBe('loss █▁');
});

test('a queued job says why it waits', () => {
  const view = afterMessage(emptyJobView, { type: 'job', data: { ...job, status: 'queued', waiting_reason: 'every worker is busy' } });
  expect(liveLines(view, 0, 80)).toEqual(['ftjob-1  queued', 'waiting: every worker is busy']);
});

test('a queued job says its turn and when that may come', () => {
  const start = 1_767_225_600;
  const view = afterMessage(emptyJobView, { type: 'job', data: { ...job, status: 'queued', waiting_reason: 'every worker is busy', queue_position: 3, estimated_start: start } });
  expect(liveLines(view, 0, 120)[1]).toBe(`waiting: #3 · starts about ${formatTime(start)} · every worker is busy`);
});

test('a failed job ends with its code, its message and the last lines of its log', () => {
  const error = { class: 'user', code: 'invalid_training_file', message: 'row 3: no assistant turn', param: 'training_file', log_tail: ['first', 'last'] } as const;
  expect(endLines({ ...job, status: 'failed', finished_at: 110, error: { ...error, log_tail: [...error.log_tail] } })).toEqual([
    'ftjob-1 failed after 8.0s',
    'invalid_training_file: row 3: no assistant turn',
    '  | first',
    '  | last',
  ]);
});

/** A terminal of the few escape sequences the region uses; lines longer than the terminal would wrap, as on a real one. */
class TestTerminal {
  readonly rows: string[] = [''];
  #row = 0;
  constructor(private readonly width: number) {}
  columns(): number {
    return this.width;
  }
  write(text: string): void {
    for (const [token] of text.matchAll(/\u001b\[(\d*)([A-Za-z])|[^\u001b]/gu)) this.#apply(token);
  }
  #apply(token: string): void {
    if (token === '\n') {
      this.#row++;
      if (this.rows.length <= this.#row) this.rows.push('');
    } else if (token.startsWith('\u001b[')) {
      if (token.endsWith('A')) this.#row -= Number(token.slice(2, -1));
      if (token.endsWith('J')) this.rows.splice(this.#row, this.rows.length, '');
      if (token.endsWith('K')) this.rows[this.#row] = '';
    } else if (token !== '\r') {
      this.rows[this.#row] += token;
      if ([...(this.rows[this.#row] ?? '')].length > this.width) throw new Error('the line wrapped');
    }
  }
}

test('the live region redraws in place, grows, shrinks, and lets lines pass above', () => {
  const terminal = new TestTerminal(20);
  const region = new LiveRegion(terminal);
  region.update(['one', 'two']);
  region.print('an event');
  region.update(['one', 'two', 'x'.repeat(50)]);
  region.update(['done']);
  expect(terminal.rows).toEqual(['an event', 'done', '']);
  region.close({ keep: false });
  expect(terminal.rows).toEqual(['an event', '']);
});

test('plain output states changes at once and progress at most every five seconds', async () => {
  const clock = new ManualClock(102_000);
  const lines: string[] = [];
  const output: Output = {
    json: false,
    interactive: false,
    columns: () => 80,
    result: (_value, text) => lines.push(text()),
    item: (_value, text) => {
      const line = text();
      if (line !== null) lines.push(line);
    },
    note: (text) => lines.push(text),
    raw: (text) => lines.push(text),
  };
  async function* messages(): AsyncGenerator<JobStreamMessage> {
    yield { type: 'job', data: { ...job, status: 'queued', waiting_reason: 'every worker is busy' } };
    for (let step = 1; step <= 100; step++) {
      clock.advance(100);
      yield { type: 'job', data: { ...job, step } };
      yield metrics(step, 1 / step);
    }
    yield { type: 'job', data: { ...job, status: 'succeeded', finished_at: 110 } };
    yield { type: 'end', data: { status: 'succeeded' } };
  }
  const watched = await watchJob({ messages: messages(), output, clock });
  expect(watched.ended).toBe(true);
  expect(watched.job?.status).toBe('succeeded');
  expect(lines.filter((line) => line.startsWith('train'))).toHaveLength(3);
  expect(lines.filter((line) => line.startsWith('ftjob-1'))).toEqual(['ftjob-1: queued (every worker is busy)', 'ftjob-1: running', 'ftjob-1: succeeded']);
});

import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { evalItemSchema, type EvalItem, type EvalResult, type EvalSpec } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { stopTokens } from '@tunefleet/ml-generation';
import type { OpenedModel } from '../runtime/engine-resources';
import { inputFile } from '../runtime/input-files';
import type { JobContext, JobOutcome } from '../runtime/job-context';
import { peakRssBytes } from '../runtime/peak-memory';
import { ProgressMeter } from '../runtime/progress-meter';
import { yieldToEventLoop } from '../runtime/stop-request';
import { writeFolder } from '../runtime/written-folder';
import { Candidates, type Candidate } from './candidates';
import { answerInWords, prepareRow, type JudgeOptions, type PreparedRow } from './judge';
import { readRows } from './read-rows';
import { Tally } from './tally';

type Context = JobContext<EvalSpec>;

/** Tokens of all rows together, held while the job runs: 256 MB. */
const TOKENS_MAX = 1 << 26;
/** Longest free text per row: enough to see what a model is up to. */
const SAMPLE_TOKENS = 32;
/** Rows between two points of the accuracy curve. */
const ROWS_PER_METRIC = 10;
const ROWS_PER_TURN = 32;

export const EVAL_ITEMS = 'items.jsonl';

/**
 * Scores every candidate on the same rows, row by row, so that all candidates have seen equally many when it is stopped or watched.
 * There is nothing to resume: a new attempt starts again.
 */
export async function runEval(context: Context): Promise<JobOutcome<EvalResult>> {
  const { spec, events, stop, engine, outputDir, clock } = context;
  const started = clock.monotonic();
  const opened = await engine.openModel(spec.base, spec.computeDtype, { events, signal: stop.signal });
  const options: JudgeOptions = {
    tokenizer: opened.tokenizer,
    maxLength: Math.min(spec.maxSequenceLength, opened.model.maxPositions),
    stopIds: await stopTokens(opened.tokenizer, opened.folder, opened.config),
    signal: stop.signal,
  };
  const rows = await prepareRows(context, options);
  const workDir = join(outputDir, 'adapters');
  try {
    using candidates = await Candidates.open(context, opened, workDir);
    const tally = new Tally(spec.candidates.map(({ model }) => model));
    const folder = await writeFolder(join(outputDir, 'result'), (dir) => scoreRows(context, { rows, candidates, options, tally, path: join(dir, EVAL_ITEMS) }));
    logSummary(context, tally, opened);
    const seconds = (clock.monotonic() - started) / 1000;
    return { type: 'succeeded', folder, result: { metric: spec.metric.type, candidates: tally.candidates(), comparison: tally.comparison(), seconds, peakRssBytes: peakRssBytes() } };
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

async function prepareRows({ spec, events, inputFiles, stop }: Context, options: JudgeOptions): Promise<PreparedRow[]> {
  const rows: PreparedRow[] = [];
  let tokens = 0;
  for (const row of await readRows(inputFile(inputFiles, spec.file), spec.limit)) {
    const prepared = prepareRow(row, spec.metric, options);
    rows.push(prepared);
    tokens += prepared.tokens;
    if (tokens > TOKENS_MAX) {
      throw new TunefleetError('invalid_input', `the first ${rows.length} rows have more than ${TOKENS_MAX} tokens, counted once per label; set a limit or split the file`, { reason: 'too_many_tokens', param: 'limit' });
    }
    if (rows.length % ROWS_PER_TURN === 0) await yieldToEventLoop();
    if (stop.wanted !== null) throw stopped();
  }
  events.log('info', `scoring ${rows.length} rows with ${spec.candidates.map(({ model }) => model).join(', ')}`);
  return rows;
}

interface Scoring {
  readonly rows: readonly PreparedRow[];
  readonly candidates: Candidates;
  readonly options: JudgeOptions;
  readonly tally: Tally;
  /** The file of items. */
  readonly path: string;
}

async function scoreRows({ spec, events, stop, clock }: Context, { rows, candidates, options, tally, path }: Scoring): Promise<void> {
  const meter = new ProgressMeter(events, clock, rows.length);
  const file = await open(path, 'wx');
  try {
    for (const [index, row] of rows.entries()) {
      const rowStarted = clock.monotonic();
      const fedBefore = candidates.tokensFed;
      const outputs: EvalItem['outputs'] = [];
      for (const candidate of candidates.list) outputs.push(await ask(candidate, row, index < spec.samples ? options : null));
      tally.add(outputs.map(({ correct }) => correct));
      await file.write(`${JSON.stringify(evalItemSchema.parse({ row: row.number, reference: row.reference, outputs }))}\n`);
      meter.stepDone(index + 1, 'score', candidates.tokensFed - fedBefore, (clock.monotonic() - rowStarted) / 1000);
      if (tally.rows % ROWS_PER_METRIC === 0 || tally.rows === rows.length) events.metrics(tally.rows, tally.accuracies());
      await yieldToEventLoop();
      if (stop.wanted !== null) throw stopped();
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** @param sampling null: no free text wanted */
async function ask({ model, cache }: Candidate, row: PreparedRow, sampling: JudgeOptions | null): Promise<EvalItem['outputs'][number]> {
  const verdict = await row.judge(cache);
  if (sampling === null) return { model, ...verdict };
  // An answer that was generated is its own sample.
  const sample = verdict.scores === undefined ? verdict.prediction : await answerInWords(cache, row.prompt, { ...sampling, maxTokens: SAMPLE_TOKENS });
  return { model, ...verdict, sample };
}

function logSummary({ events }: Context, tally: Tally, { computeDtype }: OpenedModel): void {
  for (const { model, n, correct, accuracy, interval } of tally.candidates()) {
    const [low, high] = interval.map((bound) => (100 * bound).toFixed(1));
    events.log('info', `${model}: ${correct} of ${n} right, ${(100 * accuracy).toFixed(1)} % (95 % interval ${low} to ${high} %), computed in ${computeDtype}`);
  }
}

function stopped(): TunefleetError {
  return new TunefleetError('cancelled', 'stopped on request');
}

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { EvalResult, EvalSpec } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { stopTokens } from '@tunefleet/ml-generation';
import { availableDeviceBytes } from '../runtime/device-limits';
import { precisionText, type OpenedModel } from '../runtime/engine-resources';
import { inputFile } from '../runtime/input-files';
import type { JobContext, JobOutcome, WrittenFolder } from '../runtime/job-context';
import { yieldToEventLoop } from '../runtime/stop-request';
import { writeFolder } from '../runtime/written-folder';
import { Candidates } from './candidates';
import { createJudge } from './create-judge';
import { prepareRow, type Judge, type JudgeOptions, type PreparedRow } from './judge';
import { readRows } from './read-rows';
import { scoreRows } from './score-rows';
import { stopped } from './stopped';
import { Tally } from './tally';

type Context = JobContext<EvalSpec>;

/** Tokens of all rows together, held while the job runs: 256 MB. */
const TOKENS_MAX = 1 << 26;
const ROWS_PER_TURN = 32;

export const EVAL_ITEMS = 'items.jsonl';

/**
 * Scores every candidate on the same rows, some rows at a time, so that all candidates have seen equally many whenever someone looks.
 * There is nothing to resume: a new attempt starts again.
 */
export async function runEval(context: Context): Promise<JobOutcome<EvalResult>> {
  const { spec, events, stop, engine } = context;
  const precision = { ...engine.settlePrecision(spec.computeDtype), quantisation: spec.baseQuantisation ?? null };
  using processPeak = engine.processPeak.start();
  using opened = await engine.openModel(spec.base, precision, { events, signal: stop.signal });
  const workDir = join(context.outputDir, 'adapters');
  try {
    using candidates = await Candidates.open(context, opened, workDir);
    const options: JudgeOptions = {
      tokenizer: opened.tokenizer,
      // All candidates get the same rows, so what one of them has no positions for fits none.
      maxLength: Math.min(spec.maxSequenceLength, ...candidates.list.map(({ generator }) => generator.longest)),
      stopIds: await stopTokens(opened.tokenizer, opened.folder, opened.config),
      signal: stop.signal,
      availableBytes: availableDeviceBytes(engine.device),
    };
    using judge = createJudge(spec.metric, options);
    const scored = await evaluate(context, opened, candidates, options, judge);
    return { ...scored, result: { ...scored.result, peakRssBytes: processPeak.bytes } };
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

async function evaluate(context: Context, opened: OpenedModel, candidates: Candidates, options: JudgeOptions, judge: Judge): Promise<{ readonly type: 'succeeded'; readonly folder: WrittenFolder; readonly result: Omit<EvalResult, 'peakRssBytes'> }> {
  const { spec, outputDir, clock } = context;
  const started = clock.monotonic();
  const rows = await prepareRows(context, judge);
  const tally = new Tally(spec.candidates.map(({ model }) => model));
  const folder = await writeFolder(join(outputDir, 'result'), (dir) => scoreRows(context, { judge, rows, candidates, options, tally, path: join(dir, EVAL_ITEMS) }));
  logSummary(context, tally, opened);
  const seconds = (clock.monotonic() - started) / 1000;
  return { type: 'succeeded', folder, result: { metric: spec.metric.type, candidates: tally.candidates(), comparison: tally.comparison(), seconds } };
}

async function prepareRows({ spec, events, inputFiles, stop }: Context, judge: Judge): Promise<PreparedRow[]> {
  const rows: PreparedRow[] = [];
  let tokens = 0;
  for (const row of await readRows(inputFile(inputFiles, spec.file), spec.limit)) {
    const prepared = prepareRow(judge, row);
    rows.push(prepared);
    tokens += prepared.tokens;
    if (tokens > TOKENS_MAX) {
      throw new TunefleetError('invalid_input', `the first ${rows.length} rows have more than ${TOKENS_MAX} tokens; set a limit or split the file`, { reason: 'too_many_tokens', param: 'limit' });
    }
    if (rows.length % ROWS_PER_TURN === 0) await yieldToEventLoop();
    if (stop.wanted !== null) throw stopped();
  }
  events.log('info', `scoring ${rows.length} rows with ${spec.candidates.map(({ model }) => model).join(', ')}`);
  return rows;
}

function logSummary({ events }: Context, tally: Tally, opened: OpenedModel): void {
  for (const { model, n, correct, accuracy, interval } of tally.candidates()) {
    const [low, high] = interval.map((bound) => (100 * bound).toFixed(1));
    events.log('info', `${model}: ${correct} of ${n} right, ${(100 * accuracy).toFixed(1)} % (95 % interval ${low} to ${high} %), computed in ${precisionText(opened)}`);
  }
}

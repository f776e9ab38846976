import { open } from 'node:fs/promises';
import { evalItemSchema, type EvalItem, type EvalSpec } from '@tunefleet/contracts';
import type { JobContext } from '../runtime/job-context';
import { ProgressMeter } from '../runtime/progress-meter';
import { yieldToEventLoop } from '../runtime/stop-request';
import type { Candidate, Candidates } from './candidates';
import { answersInWords, planAnswers, questionOf, type Question } from './answers';
import type { Judge, JudgeOptions, PreparedRow } from './judge';
import { stopped } from './stopped';
import type { Tally } from './tally';

type Output = EvalItem['outputs'][number];

/** Rows looked at together, to find some of similar length. Results are written in file order after each such window. */
const WINDOW_ROWS = 32;
/** Longest free text per row: enough to see what a model is up to. */
const SAMPLE_TOKENS = 32;

export interface Scoring {
  readonly judge: Judge;
  readonly rows: readonly PreparedRow[];
  readonly candidates: Candidates;
  readonly options: JudgeOptions;
  /** Gets every row's outcome. */
  readonly tally: Tally;
  /** File that gets an item per row. */
  readonly path: string;
}

/** Judges all rows for all candidates. @throws TunefleetError `cancelled` when a stop is wanted */
export async function scoreRows({ spec, events, stop, clock }: JobContext<EvalSpec>, scoring: Scoring): Promise<void> {
  const { judge, rows, candidates, options, tally, path } = scoring;
  const meter = new ProgressMeter(events, clock, rows.length);
  const file = await open(path, 'wx');
  let done = 0;
  try {
    for (let begin = 0; begin < rows.length; begin += WINDOW_ROWS) {
      const window = rows.slice(begin, begin + WINDOW_ROWS);
      const outputs = window.map((): Output[] => []);
      for (const group of judge.plan(window, candidates.list)) {
        const groupStarted = clock.monotonic();
        const fedBefore = judge.tokensFed + candidates.tokensFed;
        await judgeGroup(scoring, window, group, outputs);
        done += group.length;
        meter.stepDone(done, 'score', judge.tokensFed + candidates.tokensFed - fedBefore, (clock.monotonic() - groupStarted) / 1000, group.length);
        await yieldToEventLoop();
        if (stop.wanted !== null) throw stopped();
      }
      await addSamples(candidates.list, window.slice(0, Math.max(0, spec.samples - begin)), outputs, options);
      for (const [index, { number: row, reference }] of window.entries()) {
        const item = evalItemSchema.parse({ row, reference, outputs: outputs[index] });
        tally.add(item.outputs.map(({ correct }) => correct));
        await file.write(`${JSON.stringify(item)}\n`);
      }
      events.metrics(tally.rows, tally.accuracies());
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function judgeGroup({ judge, candidates }: Scoring, window: readonly PreparedRow[], group: readonly number[], outputs: Output[][]): Promise<void> {
  for (const candidate of candidates.list) {
    const verdicts = await judge.judge(candidate, group.map((index) => window[index] as PreparedRow));
    group.forEach((index, place) => outputs[index]?.push({ model: candidate.model, ...(verdicts[place] as (typeof verdicts)[number]) }));
  }
}

/** Adds free text to the outputs of the first rows. An answer that was generated is its own sample. */
async function addSamples(candidates: readonly Candidate[], rows: readonly PreparedRow[], outputs: Output[][], options: JudgeOptions): Promise<void> {
  const questions = rows.map((row) => questionOf(row, SAMPLE_TOKENS, options));
  for (const group of planAnswers(questions, candidates, options)) {
    for (const [place, candidate] of candidates.entries()) {
      const places = group.flatMap((index) => outputs[index]?.[place] ?? []);
      const generated = places.every(({ scores }) => scores === undefined);
      const texts = generated ? places.map(({ prediction }) => prediction) : await answersInWords(candidate, group.map((index) => questions[index] as Question), options);
      places.forEach((output, index) => (output.sample = texts[index]));
    }
  }
}

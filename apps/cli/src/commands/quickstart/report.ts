import type { EvalItem, EvalResult, FineTuneResult } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { z } from 'zod';

const MEBIBYTE = 1024 * 1024;

const candidateSchema = z.object({
  model: z.string(),
  accuracy: z.number(),
  correct: z.int(),
  /** Wilson, 95 %. */
  interval: z.tuple([z.number(), z.number()]),
});

/** `.tunefleet/quickstart/report.json`. Keys are only ever added. */
export const reportSchema = z.object({
  base_model: z.string(),
  dataset: z.object({ name: z.string(), train: z.int(), test: z.int() }),
  job_id: z.string(),
  adapter_dir: z.string(),
  train: z.object({
    steps: z.int(),
    tokens: z.int(),
    tokens_per_s: z.number(),
    loss_first: z.number(),
    loss_last: z.number(),
    peak_rss_mb: z.number(),
    seconds: z.number(),
  }),
  eval: z.object({ metric: z.string(), n: z.int(), base: z.number(), tuned: z.number() }),
  seconds_total: z.number(),
  tuned_model: z.string(),
  eval_id: z.string(),
  eval_detail: z.object({ base: candidateSchema, tuned: candidateSchema, p_value: z.number().nullable(), seconds: z.number() }),
  compute_dtype: z.string(),
  /** Wall time by phase, seconds. */
  phases: z.record(z.string(), z.number()),
  example: z
    .object({ row: z.int(), reference: z.string(), before: z.string(), after: z.string() })
    .nullable(),
});
export type QuickstartReport = z.infer<typeof reportSchema>;

export interface ReportInput {
  readonly baseModel: string;
  readonly tunedModel: string;
  readonly dataset: { readonly name: string; readonly train: number; readonly test: number };
  readonly jobId: string;
  readonly evalId: string;
  readonly adapterDir: string;
  readonly training: FineTuneResult;
  readonly evaluation: EvalResult;
  readonly items: readonly EvalItem[];
  readonly phases: Readonly<Record<string, number>>;
}

/** @throws invariant when the eval result lacks one of the two models */
export function buildReport(input: ReportInput): QuickstartReport {
  const { training, evaluation } = input;
  const base = candidate(evaluation, input.baseModel);
  const tuned = candidate(evaluation, input.tunedModel);
  return {
    base_model: input.baseModel,
    dataset: { ...input.dataset },
    job_id: input.jobId,
    adapter_dir: input.adapterDir,
    train: {
      steps: training.steps,
      tokens: training.trainedTokens,
      tokens_per_s: round(training.tokensPerSecond, 1),
      loss_first: training.lossFirst,
      loss_last: training.lossLast,
      peak_rss_mb: round(training.peakRssBytes / MEBIBYTE, 1),
      seconds: round(training.trainSeconds, 2),
    },
    eval: { metric: evaluation.metric, n: tuned.n, base: base.accuracy, tuned: tuned.accuracy },
    seconds_total: round(Object.values(input.phases).reduce((sum, seconds) => sum + seconds, 0), 2),
    tuned_model: input.tunedModel,
    eval_id: input.evalId,
    eval_detail: {
      base: { model: base.model, accuracy: base.accuracy, correct: base.correct, interval: base.interval },
      tuned: { model: tuned.model, accuracy: tuned.accuracy, correct: tuned.correct, interval: tuned.interval },
      p_value: evaluation.comparison?.pValue ?? null,
      seconds: round(evaluation.seconds, 2),
    },
    compute_dtype: training.computeDtype,
    phases: Object.fromEntries(Object.entries(input.phases).map(([name, seconds]) => [name, round(seconds, 2)])),
    example: chooseExample(input.items, input.baseModel, input.tunedModel),
  };
}

function candidate(result: EvalResult, model: string): EvalResult['candidates'][number] {
  const found = result.candidates.find((entry) => entry.model === model);
  if (found === undefined) {
    throw new TunefleetError('invariant', `the eval result has no entry for ${model}, only for ${result.candidates.map((entry) => entry.model).join(', ')}`);
  }
  return found;
}

/** The first sampled mail that tuning put right; failing that, the first sampled one. */
function chooseExample(items: readonly EvalItem[], baseModel: string, tunedModel: string): QuickstartReport['example'] {
  const sampled = items.flatMap((item) => {
    const before = item.outputs.find((output) => output.model === baseModel);
    const after = item.outputs.find((output) => output.model === tunedModel);
    if (before?.sample === undefined || after?.sample === undefined) return [];
    const example = { row: item.row, reference: item.reference, before: before.sample.trim(), after: after.sample.trim() };
    return [{ example, improved: !before.correct && after.correct }];
  });
  return (sampled.find((entry) => entry.improved) ?? sampled[0])?.example ?? null;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

import { Option, type Command } from 'commander';
import type { CreateEval, EvalItem, EvalJob } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { serverCommand } from '../connection/command';
import { watchUntilEnd } from '../progress/watch-until-end';
import { keyValue, nameList, wholeNumber } from '../render/arguments';
import { EXIT } from '../render/exit-code';
import { renderFields, renderTable } from '../render/table';
import { formatPercent, formatTime, oneLine } from '../render/text';
import { waitingText } from '../render/waiting';
import { fileOrPath } from './jobs-create';

interface CreateOptions {
  readonly model: string;
  readonly compareTo?: readonly string[];
  readonly file: string;
  readonly labels?: readonly string[];
  readonly normalise?: 'none' | 'tokens';
  readonly maxTokens?: number;
  readonly ignoreCase?: boolean;
  readonly limit?: number;
  readonly samples?: number;
  readonly maxSeqLength?: number;
  readonly computeDtype?: 'auto' | 'f32' | 'bf16';
  readonly baseQuantisation?: 'nf4' | 'fp4';
  readonly after?: readonly string[];
  readonly metadata?: Readonly<Record<string, string>>;
  readonly watch?: boolean;
}

export function registerEvals(program: Command): void {
  const evals = program.command('evals').description('accuracy of models on held-out rows');

  serverCommand<CreateOptions>(
    evals
      .command('create')
      .requiredOption('--model <name>', 'model to judge: a base model or a tuned one (ft:…)')
      .requiredOption('--file <id or path>', 'rows with the right answers')
      .option('--compare-to <names>', 'other models on the same base, judged on the same rows', nameList)
      .option('--labels <names>', 'the possible answers: the likeliest must be the right one', nameList)
      .addOption(new Option('--normalise <how>', 'with --labels: divide log-likelihoods by').choices(['none', 'tokens']))
      .option('--max-tokens <count>', 'without --labels (the text must equal the answer): longest text', wholeNumber(1, 4096))
      .option('--ignore-case', 'without --labels: capitals do not matter')
      .option('--limit <rows>', 'only the first rows', wholeNumber(1, 10_000_000))
      .option('--samples <rows>', 'answer this many first rows in words', wholeNumber(0, 100))
      .option('--max-seq-length <tokens>', 'longest row', wholeNumber(8, 131_072))
      .addOption(new Option('--compute-dtype <dtype>', 'arithmetic').choices(['auto', 'f32', 'bf16']))
      .addOption(new Option('--base-quantisation <type>', 'the base in 4 bits, as qlora has it while it trains').choices(['nf4', 'fp4']))
      .option('--after <ids>', 'start only when these jobs have succeeded', nameList)
      .option('--metadata <key=value>', 'label; repeatable', keyValue)
      .option('--watch', 'show the eval until it ends')
      .description('start an eval'),
    async (context) => {
      const { client, output, options, signal } = context;
      const given = fileOrPath(options.file);
      const file = 'id' in given ? given.id : (await client.files.upload({ path: given.path, purpose: 'evals', signal })).id;
      const created = await client.evals.create(createEvalRequest(options, file));
      if (options.watch !== true) {
        output.result(created, () => `${created.id} ${created.status}\nwatch it: tunefleet evals watch ${created.id}`);
        return EXIT.ok;
      }
      const code = await watchUntilEnd(context, created.id);
      if (code === EXIT.ok) {
        const done = await client.evals.get(created.id);
        output.item(done, () => resultTable(done));
      }
      return code;
    },
  );

  serverCommand<{ readonly limit: number }>(
    evals.command('list').option('--limit <count>', 'newest first, at most so many', wholeNumber(1, 100), 20).description('evals, newest first'),
    async ({ client, output, options }) => {
      const list = await client.evals.list({ limit: options.limit });
      output.result(list, () => renderTable(EVAL_COLUMNS, list.data));
    },
  );

  serverCommand(evals.command('get').argument('<id>').description('one eval with its result'), async ({ client, output }, [id = '']) => {
    const job = await client.evals.get(id);
    output.result(job, () => describeEval(job));
  });

  serverCommand(evals.command('items').argument('<id>').description('the answers row by row'), async ({ client, output }, [id = '']) => {
    for await (const item of client.evals.items(id)) output.item(item, () => describeItem(item));
  });

  serverCommand(evals.command('watch').argument('<id>').description('show an eval live until it ends'), (context, [id = '']) => watchUntilEnd(context, id));

  serverCommand(evals.command('cancel').argument('<id>').description('stop an eval for good'), async ({ client, output }, [id = '']) => {
    const job = await client.evals.cancel(id);
    output.result(job, () => `${job.id} ${job.status}`);
  });
}

/** @throws invalid_input when options of both metrics are mixed */
export function createEvalRequest(options: CreateOptions, file: string): CreateEval {
  const exactOnly = options.maxTokens !== undefined || options.ignoreCase === true;
  if (options.labels !== undefined && exactOnly) {
    throw new TunefleetError('invalid_input', '--max-tokens and --ignore-case go with free text; with --labels the likeliest label is taken: leave one out');
  }
  const metric: CreateEval['metric'] =
    options.labels !== undefined
      ? { type: 'label_likelihood', labels: [...options.labels], ...(options.normalise === undefined ? {} : { normalise: options.normalise }) }
      : {
          type: 'exact_match',
          ...(options.maxTokens === undefined ? {} : { max_tokens: options.maxTokens }),
          ...(options.ignoreCase === undefined ? {} : { ignore_case: options.ignoreCase }),
        };
  return {
    model: options.model,
    file,
    metric,
    ...(options.compareTo === undefined ? {} : { compare_to: [...options.compareTo] }),
    ...(options.limit === undefined ? {} : { limit: options.limit }),
    ...(options.samples === undefined ? {} : { samples: options.samples }),
    ...(options.maxSeqLength === undefined ? {} : { max_seq_length: options.maxSeqLength }),
    ...(options.computeDtype === undefined ? {} : { compute_dtype: options.computeDtype }),
    ...(options.baseQuantisation === undefined ? {} : { base_quantisation: { type: options.baseQuantisation } }),
    ...(options.after === undefined ? {} : { after: [...options.after] }),
    ...(options.metadata === undefined ? {} : { metadata: { ...options.metadata } }),
  };
}

const EVAL_COLUMNS = [
  { header: 'id', value: (job: EvalJob) => job.id },
  { header: 'status', value: (job: EvalJob) => job.status },
  { header: 'model', value: (job: EvalJob) => job.model },
  { header: 'accuracy', value: (job: EvalJob) => accuracyOf(job, job.model), align: 'right' },
  { header: 'compared to', value: (job: EvalJob) => job.compare_to.join(', ') },
  { header: 'created', value: (job: EvalJob) => formatTime(job.created_at) },
] as const;

function accuracyOf(job: EvalJob, model: string): string {
  const found = job.result?.candidates.find((candidate) => candidate.model === model);
  return found === undefined ? '' : formatPercent(found.accuracy);
}

function describeEval(job: EvalJob): string {
  const head = renderFields([
    ['id', job.id],
    ['status', job.status],
    ['waiting', waitingText(job)],
    ['model', job.model],
    ['compared to', job.compare_to.join(', ')],
    ['file', job.file],
    ['metric', job.metric.type === 'label_likelihood' ? `label_likelihood (${job.metric.labels.join(', ')})` : job.metric.type],
    ['row', `${job.step}/${job.total_steps ?? '?'}`],
    ['created', formatTime(job.created_at)],
    ['finished', formatTime(job.finished_at)],
    ['result files', job.result_files.join(', ')],
    ['error', job.error === null ? null : `${job.error.code}: ${job.error.message}`],
  ]);
  return job.result === null ? head : `${head}\n\n${resultTable(job)}`;
}

function resultTable(job: EvalJob): string {
  if (job.result === null) return '';
  const table = renderTable(
    [
      { header: 'model', value: (row) => row.model },
      { header: 'accuracy', value: (row) => formatPercent(row.accuracy), align: 'right' },
      { header: '95 % interval', value: (row) => row.interval.map((bound) => (bound * 100).toFixed(1)).join(' – '), align: 'right' },
      { header: 'correct', value: (row) => `${row.correct}/${row.n}`, align: 'right' },
    ],
    job.result.candidates,
  );
  const { comparison } = job.result;
  if (comparison === null) return table;
  return `${table}\nonly the first right: ${comparison.onlyFirstCorrect}, only the last right: ${comparison.onlyLastCorrect} (McNemar p = ${comparison.pValue.toPrecision(3)})`;
}

function describeItem(item: EvalItem): string {
  const answers = item.outputs.map((output) => `${output.correct ? '✓' : '✗'} ${oneLine(output.prediction)}${output.sample === undefined ? '' : ` “${oneLine(output.sample)}”`}`);
  return `${String(item.row).padStart(5)}  ${oneLine(item.reference)}  ${answers.join('  ')}`;
}

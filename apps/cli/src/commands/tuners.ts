import type { Command } from 'commander';
import { TunefleetError } from '@tunefleet/foundation';
import { describeCausalLm, ModelResolver, modelResolverOptions, type CausalLmDescription } from '@tunefleet/ml-models/specs';
import { estimateMemory, parseTunerSpec, specHalfOf, tunerSpecs, type TunerKind } from '@tunefleet/ml-tuners/specs';
import { runCommand } from '../connection/command';
import type { Output } from '../render/output';
import { renderFields, renderTable } from '../render/table';
import { formatBytes } from '../render/text';
import { recipe } from './quickstart/recipe';

/** What a step is priced for: one row of so many tokens. */
const TOKENS = 1024;

interface TunerOptions {
  readonly model: string;
  readonly revision?: string;
  readonly json?: boolean;
}

/** What a tuner with its defaults trains and takes on one model. */
export interface TunerCost {
  readonly kind: TunerKind;
  readonly title: string;
  readonly summary: string;
  readonly learning_rate: number;
  readonly parameters: number;
  readonly adapter_bytes: number;
  /** Of a step over one row of 1,024 tokens in f32, weights included. */
  readonly memory_bytes: number;
  readonly defaults: Readonly<Record<string, unknown>>;
}

export function registerTuners(program: Command): void {
  program
    .command('tuners')
    .argument('[kind]', 'one tuner, with all its fields')
    .option('--model <id>', 'base model to price them for: a hub id, or the path of a folder', recipe.baseModel)
    .option('--revision <name>', 'branch, tag or commit of the model')
    .option('--json', 'print JSON')
    .description('tuning methods, their defaults, and what they cost on a model')
    .action(async (kind: string | undefined, options: TunerOptions) => {
      await runCommand(options, (output, signal) => showTuners(kind, options, output, signal));
    });
}

async function showTuners(kind: string | undefined, { model: id, revision }: TunerOptions, output: Output, signal: AbortSignal): Promise<void> {
  const kinds = kind === undefined ? (Object.keys(tunerSpecs) as TunerKind[]) : [knownKind(kind)];
  const resolver = new ModelResolver({ ...modelResolverOptions(process.env), localRoots: 'any' });
  const { config, notices } = await resolver.describe(id, { ...(revision === undefined ? {} : { revision }), signal });
  for (const notice of notices) output.note(notice);
  const model = describeCausalLm(config);
  const costs = kinds.map((each) => costOf(each, model));
  output.result({ object: 'list', model: id, tokens: TOKENS, data: costs }, () => (kind === undefined ? renderList(costs, id) : renderOne(costs[0] as TunerCost, id)));
}

export function costOf(kind: TunerKind, model: CausalLmDescription): TunerCost {
  const spec = parseTunerSpec({ kind });
  const { title, summary, learningRate, countParameters } = specHalfOf(spec);
  const parameters = countParameters(spec, model);
  const { kind: _kind, ...defaults } = spec;
  const { totalBytes } = estimateMemory({ model, spec, computeDtype: 'f32', rows: 1, columns: TOKENS });
  return { kind, title, summary, learning_rate: learningRate, parameters, adapter_bytes: 4 * parameters, memory_bytes: totalBytes, defaults };
}

function renderList(costs: readonly TunerCost[], model: string): string {
  const table = renderTable(
    [
      { header: 'kind', value: ({ kind }) => kind },
      { header: 'trained', value: ({ parameters }) => parameters.toLocaleString('en'), align: 'right' },
      { header: 'adapter', value: ({ adapter_bytes }) => formatBytes(adapter_bytes), align: 'right' },
      { header: 'memory', value: ({ memory_bytes }) => formatBytes(memory_bytes), align: 'right' },
      { header: 'rate', value: ({ learning_rate }) => String(learning_rate), align: 'right' },
      { header: 'what it trains', value: ({ summary }) => summary },
    ],
    costs,
  );
  return `${table}\n\nWith their defaults on ${model}; memory: estimate for a step over one row of ${TOKENS.toLocaleString('en')} tokens in f32. "tunefleet tuners <kind>" shows the fields.`;
}

function renderOne({ kind, title, summary, learning_rate, parameters, adapter_bytes, memory_bytes, defaults }: TunerCost, model: string): string {
  const facts = renderFields([
    ['tuner', `${title} (${kind})`],
    ['trains', summary],
    ['learning rate', String(learning_rate)],
    [`on ${model}`, `${parameters.toLocaleString('en')} numbers, ${formatBytes(adapter_bytes)}; a step over one row of ${TOKENS.toLocaleString('en')} tokens in f32 takes about ${formatBytes(memory_bytes)}`],
  ]);
  const fields = renderTable(
    [
      { header: 'field', value: ([name]: readonly [string, unknown]) => name },
      { header: 'default', value: ([, value]) => JSON.stringify(value) },
    ],
    Object.entries(defaults),
  );
  return `${facts}\n\n${fields}\n\nSet one with --tuner-option '<field>=<JSON value>'; docs/guide/tuners.md explains them.`;
}

function knownKind(kind: string): TunerKind {
  if (Object.hasOwn(tunerSpecs, kind)) return kind as TunerKind;
  throw new TunefleetError('not_found', `there is no tuner "${kind.slice(0, 60)}"; there are ${Object.keys(tunerSpecs).join(', ')}`);
}

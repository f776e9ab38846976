import { readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { TunefleetError } from '@tunefleet/foundation';
import { MergedWeights, exportGguf, exportGgufAdapter, exportMerged, exportPeft, exportSwift, isGgmlType, largestDifference, type NamedAdapters } from '@tunefleet/ml-export';
import { readAdapterFiles } from '@tunefleet/ml-formats';
import type { WeightDtype } from '@tunefleet/ml-models';
import { openEngineDevice } from '../open-engine-device';
import { modelOptions, resolveLocalModel } from './local-engine';
import { namedAdapters } from './named-adapters';

const USAGE = `usage: tunefleet adapters export <folder or id or ft: name> ... --format <format> --out <folder or file> [options]

  --format merged          the base model with the adapter in its weights, for Transformers
           gguf            the same as one GGUF file, with tokenizer and chat template
           gguf-adapter    a LoRA as a GGUF adapter, for a base that is GGUF already
           peft, swift     a folder in the layout of PEFT or SWIFT; of several adapters, or of a folder that holds several, with all of them
  --names <name,name,...>  peft, swift: what the adapters are called there; default: as their folders, and default where there is one
  --model <name>           base model; default: the one the adapter names
  --revision <name>        branch, tag or commit of the model
  --dtype <d>              merged: f32, f16 or bf16; default: as the base stores its weights
                           gguf: f32, f16 (default) or q8_0
  --max-shard-size <size>  such as 2GB; default 5GB
  --verify                 compute with the result and compare with base and adapter
`;

const DTYPES: Readonly<Record<string, WeightDtype>> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };

export interface ExportArguments {
  /** The first one. */
  readonly adapter: string;
  /** By the names they are to have. */
  readonly named: NamedAdapters;
  readonly extraStates: string | null;
  readonly model: string | undefined;
  readonly revision: string | undefined;
  readonly out: string;
  /** Null: the user did not say. */
  readonly dtype: string | null;
  readonly shardBytesMax: number | undefined;
  readonly verify: boolean;
}

const FORMATS: Readonly<Record<string, (given: ExportArguments) => Promise<string>>> = {
  merged: mergedFormat,
  gguf: ggufFormat,
  'gguf-adapter': ggufAdapterFormat,
  peft: peftFormat,
  swift: ({ named, extraStates, out }) => exportSwift(named, out, extraStates).then(() => `${[...named.keys()].join(', ')} written to ${out}`),
};

/** Writes an adapter in the layout of other programs. What was done goes to stderr. */
export async function exportCommand(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: modelOptions.model,
      revision: modelOptions.revision,
      adapter: { type: 'string', multiple: true },
      names: { type: 'string' },
      format: { type: 'string' },
      out: { type: 'string' },
      dtype: { type: 'string' },
      'max-shard-size': { type: 'string' },
      verify: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const { adapter: adapters = [], out, format } = values;
  const [adapter] = adapters;
  if (adapter === undefined || out === undefined || format === undefined) throw new TunefleetError('invalid_input', `an adapter, --format and --out are needed\n${USAGE}`);
  const write = Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
  if (write === undefined) throw new TunefleetError('invalid_input', `--format is "${format}"; it must be ${Object.keys(FORMATS).join(', ')}`);
  const { model, revision, dtype = null, verify } = values;
  if (verify && format !== 'merged') throw new TunefleetError('invalid_input', '--verify is for --format merged, which this engine can compute with');
  const isFolder = format === 'peft' || format === 'swift';
  if (!isFolder && adapters.length > 1) throw new TunefleetError('invalid_input', `--format ${format} takes one adapter, got ${adapters.length}; make one of them with "tunefleet adapters combine"`);
  const together = isFolder ? namedAdapters(adapters, values.names) : { named: new Map<string, string>(), extraStates: null };
  const done = await write({ adapter, ...together, model, revision, out: resolve(out), dtype, verify, shardBytesMax: bytesOf(values['max-shard-size']) });
  process.stderr.write(`${done}\n`);
}

async function peftFormat({ named, extraStates, out }: ExportArguments): Promise<string> {
  if (extraStates !== null) throw new TunefleetError('invalid_input', `${extraStates} holds parameters of the base trained along with the adapters, which a PEFT folder has no place for; use --format swift`, { reason: 'no_such_layout' });
  await exportPeft(named, out);
  return `${[...named.keys()].join(', ')} written to ${out}`;
}

async function mergedFormat({ adapter, model, revision, out, dtype, shardBytesMax, verify }: ExportArguments): Promise<string> {
  const wanted = dtype === null ? null : DTYPES[dtype];
  if (wanted === undefined) throw new TunefleetError('invalid_input', `--dtype is "${dtype}"; for merged weights it must be f32, f16 or bf16`);
  const { folder: base, config } = await resolveLocalModel({ model, revision, adapter });
  using weights = MergedWeights.open(base, config, await readAdapterFiles(adapter));
  for (const notice of weights.notices) process.stderr.write(`${notice}\n`);
  await exportMerged(weights, out, { base, config, dtype: wanted, shardBytesMax, onProgress: progressLine });
  const written = `${weights.tensors.length} tensors written to ${out}`;
  if (!verify) return written;
  const mergedConfig: unknown = JSON.parse(await readFile(join(out, 'config.json'), 'utf8'));
  const coarsest = (['BF16', 'F16', 'F32'] as const).find((each) => weights.tensors.some((tensor) => (wanted ?? tensor.dtype) === each)) ?? 'F32';
  const result = await largestDifference(await openEngineDevice(), { base, config, adapter, merged: out, mergedConfig, dtype: coarsest });
  const numbers = `logits differ by at most ${result.largestDifference.toExponential(1)} (allowed ${result.limit.toExponential(1)}, largest logit ${result.largestLogit.toFixed(2)})`;
  if (!result.equal) throw new TunefleetError('numerical', `${written}, but it does not compute what base and adapter do: ${numbers}`);
  return `${written}; checked: ${numbers}`;
}

async function ggufFormat({ adapter, model, revision, out, dtype }: ExportArguments): Promise<string> {
  const type = (dtype ?? 'f16').toUpperCase();
  if (!isGgmlType(type)) throw new TunefleetError('invalid_input', `--dtype is "${dtype}"; for GGUF it must be f32, f16 or q8_0`);
  const { folder: base, config, id } = await resolveLocalModel({ model, revision, adapter });
  using weights = MergedWeights.open(base, config, await readAdapterFiles(adapter));
  const notices = await exportGguf(weights, out, { base, config, type, name: basename(id), onProgress: progressLine });
  for (const notice of [...weights.notices, ...notices]) process.stderr.write(`${notice}\n`);
  return `${weights.tensors.length} tensors written to ${out}`;
}

async function ggufAdapterFormat({ adapter, model, revision, out, dtype }: ExportArguments): Promise<string> {
  if (dtype !== null && dtype !== 'f32') throw new TunefleetError('invalid_input', `--dtype is "${dtype}"; GGUF adapters are written as f32`);
  const { folder: base, config } = await resolveLocalModel({ model, revision, adapter });
  await exportGgufAdapter(base, config, await readAdapterFiles(adapter), out);
  return `written to ${out}`;
}

function progressLine(done: number, total: number): void {
  if (process.stderr.isTTY) process.stderr.write(done === total ? '\r\u001b[K' : `\r${done} of ${total} tensors`);
}

const UNITS: Readonly<Record<string, number>> = { '': 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30 };

function bytesOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text) ?? [];
  const factor = UNITS[unit.toUpperCase()];
  const bytes = Number(number) * (factor ?? NaN);
  if (!(bytes >= 1)) throw new TunefleetError('invalid_input', `--max-shard-size is "${text}"; it must be a size such as 500MB or 2GB`);
  return bytes;
}

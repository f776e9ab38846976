import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { compareHooks } from '@tunefleet/ml-export';
import { ADAPTER_CONFIG, adapterRoot } from '@tunefleet/ml-formats';
import { engineResourcesOptions, EngineResources, type ComputeDtypeChoice, type ModelChoice, type OpenedModel } from '@tunefleet/ml-jobs';
import { ModelResolver, modelResolverOptions, type ResolvedModel } from '@tunefleet/ml-models';
import { AdapterPool, type ActiveSet } from '@tunefleet/ml-tuners';
import { z } from 'zod';
import { openEngineDevice } from '../open-engine-device';
import { adapterWeights } from './adapter-weights';

/** Options of commands that find a model, for `parseArgs`. */
export const modelOptions = {
  model: { type: 'string' },
  revision: { type: 'string' },
  adapter: { type: 'string' },
  dtype: { type: 'string', default: 'auto' },
} as const;

/** Options of commands that compute with a model and any number of adapters on it. */
export const activeOptions = {
  ...modelOptions,
  adapter: { type: 'string', multiple: true },
  weights: { type: 'string' },
  merge: { type: 'boolean', default: false },
} as const;

export const ACTIVE_USAGE = `  --adapter <folder>   adapter folder, of PEFT or SWIFT; several are active at once, each on top of those before it
  --weights <w,w,...>  how much of each adapter's change, such as 1,0.5; default: 1 each
  --merge              compute with weights that have the adapters in them, and check that they give the same
`;

export interface ModelArguments {
  readonly model?: string | undefined;
  readonly revision?: string | undefined;
  readonly adapter?: string | undefined;
}

export interface ActiveArguments {
  readonly model?: string | undefined;
  readonly revision?: string | undefined;
  readonly adapter?: readonly string[] | undefined;
  readonly weights?: string | undefined;
  readonly merge: boolean;
  readonly dtype: string;
}

export interface LocalModel {
  readonly opened: OpenedModel;
  readonly active: ActiveSet;
}

/** Opens a model and the adapters on it with the rights of whoever runs this command: any folder may be named. Progress goes to stderr. */
export async function openLocalModel({ model, revision, adapter: folders = [], weights, merge, dtype }: ActiveArguments): Promise<LocalModel> {
  const shares = adapterWeights(weights, folders.length);
  const choice = await chooseModel({ model, revision, adapter: folders[0] });
  const device = await openEngineDevice();
  const resolver = new ModelResolver({ ...modelResolverOptions(), localRoots: 'any' });
  const engine = new EngineResources({ ...engineResourcesOptions(device), resolver });
  const events = {
    log: (_level: string, message: string) => void process.stderr.write(`${message}\n`),
    progress: () => undefined,
    model: () => undefined,
  };
  const opened = await engine.openModel(choice, parseDtype(dtype), { events });
  return { opened, active: await activate(opened, folders.map((folder, index) => ({ folder, weight: shares[index] as number })), merge) };
}

async function activate({ model }: OpenedModel, adapters: readonly { readonly folder: string; readonly weight: number }[], merge: boolean): Promise<ActiveSet> {
  const pool = new AdapterPool(model, tmpdir());
  const folders = adapters.flatMap(({ folder, weight }) => partsOf(folder).map((part) => ({ folder: part, weight })));
  const choices = folders.map(({ folder, weight }, index) => ({ name: nameOf(folder, index, folders.length), folder, weight }));
  for (const { name, folder } of choices) {
    await pool.addFolder(name, folder);
    for (const notice of pool.notices(name)) process.stderr.write(`${notice}\n`);
  }
  const active = await pool.activate(choices);
  if (!merge) return active;
  const merged = await pool.activate(choices, { merge });
  const { largestDifference, largestLogit, limit, equal } = compareHooks(model, active.hook, merged.hook);
  const numbers = `logits differ by at most ${largestDifference.toExponential(1)} (allowed ${limit.toExponential(1)}, largest logit ${largestLogit.toFixed(2)})`;
  if (!equal) throw new TunefleetError('numerical', `merged, the adapters do not compute what they do unmerged: ${numbers}`);
  process.stderr.write(`merged; checked: ${numbers}\n`);
  active[Symbol.dispose]();
  return merged;
}

/** A folder of SWIFT with several adapters stands for all of them and what of the base was trained along, as in SWIFT. */
function partsOf(folder: string): readonly string[] {
  if (existsSync(join(folder, ADAPTER_CONFIG))) return [folder];
  const { adapters, extraStates } = adapterRoot(folder);
  return [...(extraStates === null ? [] : [extraStates]), ...adapters.values()];
}

/** For messages: the folder's own name, numbered where there are several. */
function nameOf(folder: string, index: number, count: number): string {
  const name = basename(resolve(folder)).replace(/[^A-Za-z0-9_-]/g, '_').slice(0, 80) || 'adapter';
  return count === 1 ? name : `${name}-${index + 1}`;
}

/** Finds a model's folder in the same way, without opening it. */
export async function resolveLocalModel(options: ModelArguments): Promise<ResolvedModel> {
  const choice = await chooseModel(options);
  const resolved = await new ModelResolver({ ...modelResolverOptions(), localRoots: 'any' }).resolve(choice.id, { revision: choice.revision });
  for (const notice of resolved.notices) process.stderr.write(`${notice}\n`);
  return resolved;
}

const adapterBaseSchema = z.object({ base_model_name_or_path: z.string().min(1), revision: z.string().nullish() });

/** An adapter knows its base model, so `--model` may be left out beside it. */
async function chooseModel({ model, revision, adapter }: ModelArguments): Promise<ModelChoice> {
  if (model !== undefined) return { id: model, revision };
  if (adapter === undefined) throw new TunefleetError('invalid_input', 'name a model with --model <owner/name or folder>, or an adapter with --adapter <folder>');
  const path = join(adapter, 'adapter_config.json');
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new TunefleetError('invalid_input', `${adapter} is not an adapter folder: ${errorMessage(error)}`, { cause: error });
  });
  const base = adapterBaseSchema.safeParse(parseJson(text));
  if (!base.success) throw new TunefleetError('invalid_input', `${path} does not name its base model; give it with --model`);
  return { id: base.data.base_model_name_or_path, revision: revision ?? base.data.revision ?? undefined };
}

function parseDtype(text: string): ComputeDtypeChoice {
  if (text === 'auto' || text === 'f32' || text === 'bf16') return text;
  throw new TunefleetError('invalid_input', `--dtype is "${text}"; it must be auto, f32 or bf16`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

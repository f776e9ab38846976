import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { engineResourcesOptions, EngineResources, type ComputeDtypeChoice, type ModelChoice, type OpenedModel } from '@tunefleet/ml-jobs';
import { ModelResolver, modelResolverOptions, type ResolvedModel } from '@tunefleet/ml-models';
import { loadAdapter, type LoadedAdapter } from '@tunefleet/ml-tuners';
import { z } from 'zod';
import { openEngineDevice } from '../open-engine-device';

/** Options of every command that uses a model, for `parseArgs`. */
export const modelOptions = {
  model: { type: 'string' },
  revision: { type: 'string' },
  adapter: { type: 'string' },
  dtype: { type: 'string', default: 'auto' },
} as const;

export interface ModelArguments {
  readonly model?: string | undefined;
  readonly revision?: string | undefined;
  readonly adapter?: string | undefined;
  readonly dtype: string;
}

export interface LocalModel {
  readonly opened: OpenedModel;
  /** Null: the base model itself. */
  readonly adapter: LoadedAdapter | null;
}

/** Opens a model, and the adapter if one is given, with the rights of whoever runs this command: any folder may be named. Progress goes to stderr. */
export async function openLocalModel(options: ModelArguments): Promise<LocalModel> {
  const choice = await chooseModel(options);
  const device = await openEngineDevice();
  const resolver = new ModelResolver({ ...modelResolverOptions(), localRoots: 'any' });
  const engine = new EngineResources({ ...engineResourcesOptions(device), resolver });
  const events = {
    log: (_level: string, message: string) => void process.stderr.write(`${message}\n`),
    progress: () => undefined,
    model: () => undefined,
  };
  const opened = await engine.openModel(choice, parseDtype(options.dtype), { events });
  const adapter = options.adapter === undefined ? null : await loadAdapter(opened.model, options.adapter);
  for (const notice of adapter?.notices ?? []) process.stderr.write(`${notice}\n`);
  return { opened, adapter };
}

/** Finds a model's folder in the same way, without opening it. */
export async function resolveLocalModel(options: Omit<ModelArguments, 'dtype'>): Promise<ResolvedModel> {
  const choice = await chooseModel(options);
  const resolved = await new ModelResolver({ ...modelResolverOptions(), localRoots: 'any' }).resolve(choice.id, { revision: choice.revision });
  for (const notice of resolved.notices) process.stderr.write(`${notice}\n`);
  return resolved;
}

const adapterBaseSchema = z.object({ base_model_name_or_path: z.string().min(1), revision: z.string().nullish() });

/** An adapter knows its base model, so `--model` may be left out beside it. */
async function chooseModel({ model, revision, adapter }: Omit<ModelArguments, 'dtype'>): Promise<ModelChoice> {
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

import { formatAdapterConfig, formatModelCard, writeAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import { z } from 'zod';
import { floatsOf, tensorOf, unusableAdapter } from '../adapter-tensors';
import type { TunableModel } from '../tuner';
import { virtualTokenCount } from './fields';
import type { PromptPlace } from './place';

const TABLE = 'prompt_embeddings';
/** A commit hash, the only kind of revision that other tools can look up on a hub. */
const COMMIT = /^[0-9a-f]{40}$/;

/** What a prompt-learning method writes beside what all of them do. */
export interface PromptFile {
  readonly peftType: string;
  /** For hubs and for people. */
  readonly tag: string;
  readonly method: string;
  readonly virtualTokens: number;
  readonly place: PromptPlace;
  /** Its own fields of `adapter_config.json`. @param base id of the base model */
  fields(base: string): Readonly<Record<string, unknown>>;
}

/** @param table [n, width] */
export function writePromptFile(folder: string, file: PromptFile, table: Float32Array, base: { readonly id: string; readonly revision: string }): Promise<void> {
  const { peftType, tag, method, virtualTokens, place } = file;
  const revision = COMMIT.test(base.revision) ? base.revision : null;
  const config = {
    peft_type: peftType,
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base.id,
    revision,
    inference_mode: true,
    auto_mapping: null,
    modules_to_save: null,
    num_virtual_tokens: virtualTokens,
    num_transformer_submodules: 1,
    num_layers: place.layers,
    num_attention_heads: place.heads,
    token_dim: place.tokenDim,
    ...file.fields(base.id),
  };
  const card = formatModelCard({
    title: `${method} of ${base.id}`,
    base: base.id,
    revision,
    tag,
    method: `${method}, ${virtualTokens} virtual tokens`,
    library: 'peft',
    facts: [`Numbers in the table: ${table.length}`],
  });
  return writeAdapterFiles(folder, { config: formatAdapterConfig(config), tensors: [tensorOf(TABLE, [virtualTokens, table.length / virtualTokens], table, 0)], card });
}

const optionalCount = z.int().min(1).nullish();
const commonFields = {
  task_type: z.literal('CAUSAL_LM', { error: 'must be "CAUSAL_LM": adapters of other tasks cannot be used with a causal language model' }).nullish(),
  base_model_name_or_path: z.string().max(1000).nullish(),
  num_virtual_tokens: virtualTokenCount,
  num_transformer_submodules: z.literal(1, { error: 'must be 1: there is no encoder' }).nullish(),
  token_dim: optionalCount,
  num_attention_heads: optionalCount,
  num_layers: optionalCount,
  modules_to_save: z.array(z.string()).max(0, { error: 'must be empty: other trained modules are not supported yet' }).nullish(),
};
/** Fields that say nothing about what is computed. */
const WITHOUT_EFFECT = ['peft_type', 'peft_version', 'revision', 'inference_mode', 'auto_mapping'];

export interface ReadPrompt<Fields> {
  readonly fields: Fields;
  readonly virtualTokens: number;
  /** [n, width] */
  readonly table: Float32Array;
  readonly notices: readonly string[];
}

/**
 * A prompt-learning adapter of PEFT, whoever wrote it.
 * @param own the method's own fields   @param width of the table in this model
 * @throws TunefleetError `incompatible_artifact`
 */
export function readPromptFile<S extends z.ZodRawShape>({ config, tensors }: AdapterFiles, own: S, model: TunableModel, place: PromptPlace, width: number): ReadPrompt<z.infer<z.ZodObject<S>>> {
  const parsed = z.object(commonFields).safeParse(config);
  if (!parsed.success) throw badConfig(parsed.error);
  const fields = z.object(own).safeParse(config);
  if (!fields.success) throw badConfig(fields.error);
  const { num_virtual_tokens: virtualTokens, base_model_name_or_path: base, ...common } = parsed.data;
  const madeFor = base ? ` (${base})` : '';
  for (const [field, given, wanted] of [
    ['token_dim', common.token_dim, place.tokenDim],
    ['num_attention_heads', common.num_attention_heads, place.heads],
    ['num_layers', common.num_layers, place.layers],
  ] as const) {
    if (given != null && given !== wanted) throw unusableAdapter(`${field} is ${given}, which would have to be ${wanted} for this ${model.modelType} model; it was made for another base model${madeFor}`);
  }
  const others = tensors.filter(({ name }) => name !== TABLE).map(({ name }) => name);
  if (others.length > 0) throw unusableAdapter(`tensors that are not known: ${others.slice(0, 5).join(', ')}${others.length > 5 ? ', ...' : ''}; it should hold "${TABLE}" only`);
  const [tensor] = tensors;
  if (!tensor) throw unusableAdapter(`it holds no tensor "${TABLE}"`);
  if (tensor.shape.length !== 2 || tensor.shape[0] !== virtualTokens || tensor.shape[1] !== width) {
    throw unusableAdapter(`"${TABLE}" is [${tensor.shape.join(', ')}], which would have to be [${virtualTokens}, ${width}] for this ${model.modelType} model; it was made for another base model${madeFor}`);
  }
  const table = floatsOf(tensor);
  const unknown = Object.keys(config).filter((name) => !(name in commonFields) && !(name in own) && !WITHOUT_EFFECT.includes(name));
  return {
    fields: fields.data,
    virtualTokens,
    table,
    notices: unknown.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${unknown.join(', ')}`] : [],
  };
}

function badConfig({ issues: [issue] }: z.ZodError): Error {
  return unusableAdapter(`adapter_config.json has a value that cannot be used, ${issue?.path.join('.')}: ${issue?.message}`);
}

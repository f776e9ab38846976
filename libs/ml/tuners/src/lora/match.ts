import { TunefleetError } from '@tunefleet/foundation';
import { matchesName, patternValue, selects, type NameTest } from '../matching/module-names';
import { withinTimeLimit } from '../matching/time-limit';
import type { TunableModel } from '../tuner';
import type { LoraSpec } from './spec';

/** One linear map that gets a low-rank update. */
export interface LoraTarget {
  readonly path: string;
  readonly inSize: number;
  readonly outSize: number;
  readonly rank: number;
  readonly alpha: number;
  /** alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  readonly scale: number;
  /** The base stores the map's weight as [in, out]. */
  readonly fanInFanOut?: true;
}

const QUERY_AND_VALUE = ['q_proj', 'v_proj'];

/**
 * What PEFT adapts when `target_modules` is null, by model type. For Phi-3 it has nothing; the map that holds queries and values is the nearest.
 * @see huggingface/peft `src/peft/utils/constants.py`
 */
const USUAL_TARGETS: Readonly<Record<string, readonly string[]>> = {
  llama: QUERY_AND_VALUE,
  mistral: QUERY_AND_VALUE,
  qwen2: QUERY_AND_VALUE,
  qwen3: QUERY_AND_VALUE,
  gemma2: QUERY_AND_VALUE,
  gemma3_text: QUERY_AND_VALUE,
  phi3: ['qkv_proj'],
  gpt2: ['c_attn'],
  bert: ['query', 'value'],
};

/** All that a specification trains of a model. */
export interface LoraPlan {
  /** Linear maps in the model's order, the output head last. */
  readonly targets: readonly LoraTarget[];
  /** Biases of the base that are trained, in the model's order. */
  readonly biases: readonly { readonly path: string; readonly size: number; readonly adapted: boolean }[];
  /** The embedding table as a map from V to C. */
  readonly embedding: LoraTarget | null;
  /** Tables trained whole. */
  readonly saved: readonly { readonly path: string; readonly table: 'embedding' | 'head'; readonly shape: readonly [V: number, C: number] }[];
  /** Norms trained whole, in the model's order. */
  readonly norms: readonly { readonly path: string; readonly size: number; readonly biased?: true }[];
  /** Path of the output head where it shares what is trained of the embedding; null: it does not. */
  readonly tiedHead: string | null;
  /** Rows of the embedding that are trained, and of the head where that is the same table. */
  readonly tokens: { readonly path: string; readonly indices: readonly number[]; readonly width: number } | null;
}

/**
 * The linear maps a specification names, in the model's order.
 * @throws TunefleetError `invalid_input`, param `tuner.target_modules`, when nothing matches or something named cannot be adapted
 */
export function matchProjections(spec: LoraSpec, model: TunableModel): readonly LoraTarget[] {
  return planLora(spec, model).targets;
}

/** @throws TunefleetError `invalid_input` with the field's param when the specification does not fit the model */
export function planLora(spec: LoraSpec, model: TunableModel): LoraPlan {
  return withinTimeLimit(() => {
    const ties = spec.ensure_weight_tying && model.tables?.tied === true;
    const { tables: whole, norms } = savedModules(spec, model);
    const found = targetsOf(spec, model, whole.map(({ path }) => path));
    const { embedding, targets } = ties ? tied(found, model, spec) : found;
    const saved = ties && whole.length > 0 ? whole.slice(0, 1).map((each) => ({ ...each, path: model.tables?.embedding ?? '', table: 'embedding' as const })) : whole;
    const tiedHead = ties && (embedding !== null || saved.length > 0) ? (model.tables?.head ?? null) : null;
    const tokens = trainedTokens(spec, model);
    if (embedding && spec.use_dora) throw refuseField('use_dora', `cannot be used for the embedding "${embedding.path}"; leave it out of target_modules`);
    if (embedding && typeof spec.init_lora_weights === 'string') throw refuseField('init_lora_weights', `"${spec.init_lora_weights}" cannot be used for the embedding "${embedding.path}"; leave it out of target_modules`);
    if (tokens && (embedding || saved.some(({ table }) => table === 'embedding'))) throw refuseField('trainable_token_indices', 'cannot be used together with an embedding that is adapted or trained whole');
    if (tokens && model.tables?.tied && (targets.some(({ path }) => path === model.tables?.head) || saved.length > 0)) throw refuseField('trainable_token_indices', 'cannot be used together with an output head that is adapted or trained whole, where the head is the embedding table');
    return { targets, biases: trainedBiases(spec, model, targets), embedding, saved, norms, tiedHead, tokens };
  });
}

/** What is adapted of either table is adapted of both, as the embedding. */
function tied({ embedding, targets }: Pick<LoraPlan, 'targets' | 'embedding'>, { tables, vocabSize, hiddenSize }: TunableModel, spec: LoraSpec): Pick<LoraPlan, 'targets' | 'embedding'> {
  const head = targets.find(({ path }) => path === tables?.head);
  if (!tables || !head) return { embedding, targets };
  const { rank, alpha } = embedding ?? head;
  return { embedding: loraTarget({ path: tables.embedding, inSize: vocabSize, outSize: hiddenSize }, rank, alpha, spec.use_rslora), targets: targets.filter((target) => target !== head) };
}

function targetsOf(spec: LoraSpec, model: TunableModel, saved: readonly string[]): Pick<LoraPlan, 'targets' | 'embedding'> {
  const target = targetTest(spec, model);
  const selection = { target, exclude: spec.exclude_modules, layers: listOf(spec.layers_to_transform), layersPattern: listOf(spec.layers_pattern) };
  const { tables, vocabSize: V, hiddenSize: C } = model;
  const embedding = tables && { path: tables.embedding, inSize: V, outSize: C };
  const candidates = [...model.projections, ...(tables ? [{ path: tables.head, inSize: C, outSize: V }] : [])];
  const isHit = ({ path }: { readonly path: string }) => !saved.includes(path) && selects(selection, path);
  const hits = candidates.filter(isHit);
  const hitsEmbedding = embedding !== undefined && isHit(embedding);
  const names = [...new Set(model.projections.map(({ path }) => path.split('.').at(-1)))].join(', ');
  const also = tables ? `, and ${tables.embedding.split('.').at(-1)} and ${tables.head} where they are named` : '';
  if (hits.length === 0 && !hitsEmbedding) {
    throw badTarget(`${describe(spec.target_modules)} matches no linear map of this ${model.modelType} model${spec.exclude_modules === null ? '' : ' that is not excluded'}; it has ${names}, or use "all-linear"`);
  }
  const all = [...candidates, ...(embedding ? [embedding] : [])];
  const idle = typeof target === 'string' ? undefined : target.find((entry) => !all.some(({ path }) => matchesName([entry], path)));
  if (idle !== undefined) throw badTarget(`"${idle}" names no linear map of this ${model.modelType} model; it has ${names}${also}`);
  const targetOf = (projection: TunableModel['projections'][number]): LoraTarget => {
    const rank = patternValue(spec.rank_pattern, projection.path) ?? spec.r;
    const alpha = patternValue(spec.alpha_pattern, projection.path) ?? spec.lora_alpha;
    return loraTarget(projection, rank, alpha, spec.use_rslora);
  };
  return { embedding: hitsEmbedding ? targetOf(embedding) : null, targets: hits.map(targetOf) };
}

/** Model types whose norms have biases, too, which are no part of a linear map. */
const NORMS_WITH_BIAS = ['gpt2', 'bert'];

function trainedBiases({ bias }: LoraSpec, { projections, modelType }: TunableModel, targets: readonly LoraTarget[]): LoraPlan['biases'] {
  if (bias === 'none') return [];
  if (bias === 'all' && NORMS_WITH_BIAS.includes(modelType)) throw refuseField('bias', `"all" would train the biases of norms of this ${modelType} model, too, which cannot be trained; use "lora_only"`);
  const adapted = new Set(targets.map(({ path }) => path));
  return projections.filter(({ path, biased }) => biased && (bias === 'all' || adapted.has(path))).map(({ path, outSize }) => ({ path, size: outSize, adapted: adapted.has(path) }));
}

/** PEFT's rule: a module's path ends with the entry, with or without a dot before it. */
function savedModules({ modules_to_save: entries }: LoraSpec, { tables, norms, vocabSize, hiddenSize, modelType }: TunableModel): { readonly tables: LoraPlan['saved']; readonly norms: LoraPlan['norms'] } {
  const isSaved = (path: string): boolean => entries?.some((entry) => path.endsWith(entry)) ?? false;
  const kinds = tables ? (['embedding', 'head'] as const) : [];
  const all = [...kinds.map((kind) => tables?.[kind] ?? ''), ...norms.map(({ path }) => path)];
  const idle = entries?.find((entry) => !all.some((path) => path.endsWith(entry)));
  if (idle !== undefined) {
    const names = [...new Set(all.map((path) => path.split('.').at(-1)))].join(', ');
    throw refuseField('modules_to_save', `"${idle}" cannot be trained whole; of this ${modelType} model ${names === '' ? 'nothing' : names} can`);
  }
  return {
    tables: kinds.flatMap((table) => {
      const path = tables?.[table] ?? '';
      return isSaved(path) ? [{ path, table, shape: [vocabSize, hiddenSize] as const }] : [];
    }),
    norms: norms.filter(({ path }) => isSaved(path)).map(normPlan),
  };
}

export function normPlan({ path, size, biased }: TunableModel['norms'][number]): LoraPlan['norms'][number] {
  return { path, size, ...(biased ? { biased } : {}) };
}

function trainedTokens({ trainable_token_indices: given }: LoraSpec, { tables, vocabSize, hiddenSize, modelType }: TunableModel): LoraPlan['tokens'] {
  if (given === null) return null;
  const refuse = (what: string) => refuseField('trainable_token_indices', what);
  if (!tables) throw refuse(`cannot be used with a ${modelType} model`);
  const byName: readonly (readonly [string, readonly number[]])[] = Array.isArray(given) ? [[tables.embedding, given]] : Object.entries(given);
  const [name, indices] = byName[0] ?? ['', []];
  if (byName.length !== 1 || !matchesName([name], tables.embedding)) throw refuse(`names ${byName.map(([each]) => each).join(', ') || 'nothing'}; only rows of ${tables.embedding.split('.').at(-1)} can be trained`);
  const bad = indices.find((index) => index >= vocabSize);
  if (bad !== undefined) throw refuse(`token ${bad} is outside of the vocabulary of ${vocabSize}`);
  const distinct = [...new Set(indices)].sort((a, b) => a - b);
  return { path: tables.embedding, indices: distinct, width: hiddenSize };
}

export function loraTarget({ path, inSize, outSize, fanInFanOut }: TunableModel['projections'][number], rank: number, alpha: number, rankStabilised: boolean): LoraTarget {
  return { path, inSize, outSize, rank, alpha, scale: loraScale(alpha, rank, rankStabilised), ...(fanInFanOut ? { fanInFanOut } : {}) };
}

export function loraScale(alpha: number, rank: number, rankStabilised: boolean): number {
  return alpha / (rankStabilised ? Math.sqrt(rank) : rank);
}

function targetTest(spec: LoraSpec, model: TunableModel): NameTest {
  const given = spec.target_modules;
  if (typeof given === 'string' && given.toLowerCase() === 'all-linear') return model.projections.map(({ path }) => path);
  if (given !== null) return given;
  const usual = USUAL_TARGETS[model.modelType];
  if (usual) return usual;
  throw badTarget(`is needed: there are no usual targets for model type "${model.modelType}"; use "all-linear"`);
}

function listOf<T>(value: T | readonly T[] | null): readonly T[] {
  if (value === null) return [];
  return Array.isArray(value) ? value : [value as T];
}

function describe(targets: LoraSpec['target_modules']): string {
  return JSON.stringify(targets)?.slice(0, 200) ?? '';
}

function badTarget(message: string): TunefleetError {
  return refuseField('target_modules', message);
}

function refuseField(field: string, message: string): TunefleetError {
  return new TunefleetError('invalid_input', `tuner.${field}: ${message}`, { reason: 'invalid_tuner', param: `tuner.${field}` });
}

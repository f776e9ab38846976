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

/**
 * The linear maps a specification names, in the model's order.
 * @throws TunefleetError `invalid_input`, param `tuner.target_modules`, when nothing matches or something named cannot be adapted
 */
export function matchProjections(spec: LoraSpec, model: TunableModel): LoraTarget[] {
  return withinTimeLimit(() => targetsOf(spec, model));
}

function targetsOf(spec: LoraSpec, model: TunableModel): LoraTarget[] {
  const target = targetTest(spec, model);
  const selection = { target, exclude: spec.exclude_modules, layers: listOf(spec.layers_to_transform), layersPattern: listOf(spec.layers_pattern) };
  const hits = model.projections.filter(({ path }) => selects(selection, path));
  const names = [...new Set(model.projections.map(({ path }) => path.split('.').at(-1)))].join(', ');
  if (hits.length === 0) {
    throw badTarget(`${describe(spec.target_modules)} matches no linear map of this ${model.modelType} model${spec.exclude_modules === null ? '' : ' that is not excluded'}; it has ${names}, or use "all-linear"`);
  }
  const idle = typeof target === 'string' ? undefined : target.find((entry) => !model.projections.some(({ path }) => matchesName([entry], path)));
  if (idle !== undefined) {
    throw badTarget(idle === 'lm_head' || idle === 'embed_tokens' ? `"${idle}" cannot be adapted yet; the linear maps are ${names}` : `"${idle}" names no linear map of this ${model.modelType} model; it has ${names}`);
  }
  return hits.map((projection) => {
    const rank = patternValue(spec.rank_pattern, projection.path) ?? spec.r;
    const alpha = patternValue(spec.alpha_pattern, projection.path) ?? spec.lora_alpha;
    return loraTarget(projection, rank, alpha, spec.use_rslora);
  });
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
  return new TunefleetError('invalid_input', `tuner.target_modules: ${message}`, { reason: 'invalid_tuner', param: 'tuner.target_modules' });
}

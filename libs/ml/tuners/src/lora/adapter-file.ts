import { invariant } from '@tunefleet/foundation';
import { loraAdapterConfigSchema, type AdapterTensor, type LoraAdapter, type ModelCard } from '@tunefleet/ml-formats';
import type { LoraPlan } from './match';
import { aOf, bOf, embeddingAOf, embeddingBOf, savedOf, transposed, type LoraParameter } from './parameters';
import type { LoraSpec } from './spec';
import type { StartFactors } from './start/from-weights';

/** A commit hash, the only kind of revision that other tools can look up on a hub. */
const COMMIT = /^[0-9a-f]{40}$/;

export interface WrittenLora {
  readonly spec: LoraSpec;
  readonly plan: LoraPlan;
  readonly parameters: readonly LoraParameter[];
  /** Where the adapter took its start out of the base: it is written as a plain LoRA of twice the rank, which needs no changed base. */
  readonly starts: ReadonlyMap<string, StartFactors> | null;
}

/**
 * An adapter as PEFT stores it: the targets as full paths, so that reading it back does not depend on how they were named.
 * @param values of all parameters, one after the other
 */
export function loraAdapterFile(
  { spec: trained, plan, parameters, starts }: WrittenLora,
  values: Float32Array,
  base: { readonly id: string; readonly revision: string },
): { readonly adapter: LoraAdapter; readonly card: Pick<ModelCard, 'title' | 'facts'> } {
  const { targets, embedding, saved, norms, tiedHead, tokens } = plan;
  const spec = starts === null ? trained : withoutStart(trained);
  const tensors: AdapterTensor[] = [];
  let at = 0;
  for (const { name, shape, turned } of parameters) {
    const trainedPart = values.slice(at, (at += shape.reduce((product, size) => product * size, 1)));
    const part = withStart(trainedPart, name, starts);
    const trainedShape = shape.length === 2 ? [part.length / (shape[1] ?? 1), shape[1] ?? 1] : shape;
    const [rows = 0, columns = 0] = trainedShape;
    const stored = turned ? transposed(part, rows, columns) : part;
    tensors.push({ name, dtype: 'F32', shape: turned ? [columns, rows] : trainedShape, data: new Uint8Array(stored.buffer) });
  }
  invariant(at === values.length, `the adapter has ${at} parameters, got ${values.length} values`);
  if (tiedHead !== null) tensors.push(...tensorsOfTiedHead(plan, tiedHead, tensors));
  const head = tiedHead === null ? [] : [tiedHead];
  const config = loraAdapterConfigSchema.parse({
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base.id,
    revision: COMMIT.test(base.revision) ? base.revision : null,
    r: spec.r,
    lora_alpha: spec.lora_alpha,
    lora_dropout: spec.lora_dropout,
    use_rslora: spec.use_rslora,
    use_dora: spec.use_dora,
    lora_bias: spec.lora_bias,
    bias: spec.bias,
    init_lora_weights: spec.init_lora_weights,
    target_modules: [...(embedding ? [embedding.path, ...head] : []), ...targets.map(({ path }) => path)],
    // Norms by their whole paths: PEFT takes every module whose path ends so.
    modules_to_save: saved.length + norms.length > 0 ? [...saved.map(({ path }) => path.split('.').at(-1) as string), ...(saved.length > 0 ? head : []), ...norms.map(({ path }) => path)] : null,
    trainable_token_indices: tokens && [...tokens.indices],
    rank_pattern: spec.rank_pattern,
    alpha_pattern: spec.alpha_pattern,
    fan_in_fan_out: targets.some(({ fanInFanOut }) => fanInFanOut),
  });
  return { adapter: { config, tensors }, card: { title: `${spec.use_dora ? 'DoRA' : 'LoRA'} adapter of ${base.id}`, facts: [`Adapted linear maps: ${targets.length}`, ...saved.map(({ path }) => `Trained whole: ${path}`), ...(norms.length > 0 ? [`Norms trained whole: ${norms.length}`] : []), `Parameters: ${at}`] } };
}

/** s B A - s B0 A0 = s [B, -B0] [A; A0]: the same scale from twice the rank takes twice alpha, or sqrt(2) times with rsLoRA. */
function withoutStart(spec: LoraSpec): LoraSpec {
  const doubled = (patterns: Readonly<Record<string, number>>) => Object.fromEntries(Object.entries(patterns).map(([pattern, value]) => [pattern, 2 * value]));
  return {
    ...spec,
    r: 2 * spec.r,
    lora_alpha: (spec.use_rslora ? Math.SQRT2 : 2) * spec.lora_alpha,
    rank_pattern: doubled(spec.rank_pattern),
    alpha_pattern: doubled(spec.alpha_pattern),
    init_lora_weights: true,
  };
}

/** A with A0 below it, Bᵀ with -B0ᵀ below it; other parameters as they are. */
function withStart(part: Float32Array, name: string, starts: WrittenLora['starts']): Float32Array {
  const [path, kind] = name.split(/\.(?=lora_[AB]\.weight$)/) as [string, string?];
  const start = starts?.get(path);
  if (!start || kind === undefined) return part;
  const below = kind.startsWith('lora_A') ? start.a : start.b.map((value) => -value);
  const both = new Float32Array(part.length + below.length);
  both.set(part);
  both.set(below, part.length);
  return both;
}

/** What the head has of the embedding: its table, or A = EBᵀ and B = EAᵀ. @param tensors as in the file */
function tensorsOfTiedHead({ embedding, saved }: LoraPlan, head: string, tensors: readonly AdapterTensor[]): AdapterTensor[] {
  const named = (name: string) => tensors.find((tensor) => tensor.name === name) as AdapterTensor;
  const turned = (name: string, { shape, data }: AdapterTensor): AdapterTensor => {
    const [rows = 0, columns = 0] = shape;
    return { name, dtype: 'F32', shape: [columns, rows], data: new Uint8Array(transposed(new Float32Array(data.slice().buffer), rows, columns).buffer) };
  };
  return [
    ...saved.map(({ path }) => ({ ...named(savedOf(path)), name: savedOf(head) })),
    ...(embedding ? [turned(aOf(head), named(embeddingBOf(embedding.path))), turned(bOf(head), named(embeddingAOf(embedding.path)))] : []),
  ];
}

import type { AdapterTensor, LoadedLoraAdapter } from '@tunefleet/ml-formats';
import { floatsOf, unusableAdapter } from '../adapter-tensors';
import { patternValue } from '../matching/module-names';
import type { TunableModel } from '../tuner';
import { loraTarget, normPlan, type LoraPlan, type LoraTarget } from './match';
import { aOf, bBiasOf, biasOf, bOf, embeddingAOf, embeddingBOf, magnitudeOf, savedBiasOf, savedOf, tokensOf, transposed } from './parameters';

export interface PlannedByFile {
  readonly plan: LoraPlan;
  /** Under the names of the plan's parameters. */
  readonly tensors: ReadonlyMap<string, AdapterTensor>;
  readonly notices: readonly string[];
}

/**
 * What an adapter's tensors train of a model: its targets follow from the names of the tensors and its ranks from their shapes, which is what the file really holds.
 * @param tableOf gives a table of the base, [V, C] f32; asked for only where the file brings a copy of it along
 * @throws TunefleetError `incompatible_artifact` for tensors of another base, and for tensors that would have to be dropped
 */
export function plannedBy(file: LoadedLoraAdapter, model: TunableModel, tableOf: (table: 'embedding' | 'head') => Float32Array): PlannedByFile {
  const { config } = file;
  const tensors = new Map(file.tensors.map((tensor) => [tensor.name, tensor]));
  const used = new Set<string>();
  const notices: string[] = [];
  const { tables, vocabSize: V, hiddenSize: C } = model;
  const pairOf = (projection: TunableModel['projections'][number], [nameA, nameB]: readonly [string, string]): LoraTarget | null => {
    const { path, inSize, outSize } = projection;
    const [a, b] = [tensors.get(nameA), tensors.get(nameB)];
    if (!a || !b) return null;
    used.add(nameA).add(nameB);
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[1] !== inSize || b.shape[0] !== outSize) {
      throw unusableAdapter(`"${path}" maps ${inSize} to ${outSize} in this model, but the adapter maps ${a.shape[1]} to ${b.shape[0]}; it was made for another base model${config.base_model_name_or_path === null ? '' : ` (${config.base_model_name_or_path})`}`);
    }
    return loraTarget(projection, a.shape[0] ?? 0, patternValue(config.alpha_pattern, path) ?? config.lora_alpha, config.use_rslora);
  };
  const maps = [...model.projections, ...(tables ? [{ path: tables.head, inSize: C, outSize: V }] : [])];
  const targets = maps.flatMap((map) => pairOf(map, [aOf(map.path), bOf(map.path)]) ?? []);
  if (config.lora_bias) for (const target of targets) used.add(checkedVector(bBiasOf(target.path), target.outSize, 'lora_bias', tensors));
  const biases = config.bias === 'none' ? [] : biasesOfFile(model, targets, tensors, used);
  if (config.use_dora) for (const target of targets) used.add(checkedVector(magnitudeOf(target.path), target.outSize, 'use_dora', tensors));
  const embedding = tables ? pairOf({ path: tables.embedding, inSize: V, outSize: C }, [embeddingAOf(tables.embedding), embeddingBOf(tables.embedding)]) : null;
  const tokens = tables ? tokensOfFile(file, { path: tables.embedding, rows: V, width: C }, tensors, used) : null;
  const saved: LoraPlan['saved'][number][] = [];
  for (const table of tables ? (['embedding', 'head'] as const) : []) {
    const path = tables?.[table] ?? '';
    const isSaved = file.tiesWeights ? config.modules_to_save !== null : (config.modules_to_save?.some((entry) => path.endsWith(entry)) ?? false);
    const whole = tensors.get(savedOf(path));
    if (isSaved && whole) {
      if (whole.shape.join() !== [V, C].join()) throw unusableAdapter(`"${whole.name}" is [${whole.shape.join(', ')}], but this model's table is [${V}, ${C}]; it was made for another base model, or the vocabulary was made longer`);
      used.add(whole.name);
      saved.push({ path, table, shape: [V, C] });
      continue;
    }
    // PEFT writes the table itself along when the embedding is adapted.
    for (const name of [savedOf(path), `${path}.base_layer.weight`]) {
      const copy = tensors.get(name);
      if (!copy) continue;
      if (!equalsTable(copy, tableOf(table))) throw unusableAdapter(`"${name}" differs from this model's table; the vocabulary was made longer or the table was changed, which a LoRA cannot bring along`);
      used.add(name);
      notices.push(`"${name}" is the base model's own table and was not needed`);
    }
  }
  const norms = model.norms.flatMap((norm) => {
    if (!config.modules_to_save?.some((entry) => norm.path.endsWith(entry)) || !tensors.has(savedOf(norm.path))) return [];
    for (const name of [savedOf(norm.path), ...(norm.biased ? [savedBiasOf(norm.path)] : [])]) used.add(checkedVector(name, norm.size, 'modules_to_save', tensors));
    return [normPlan(norm)];
  });
  const unused = [...tensors.keys()].filter((name) => !used.has(name));
  if (unused.length > 0) {
    throw unusableAdapter(`${unused.length} of its tensors belong to no linear map of this ${model.modelType} model that can be adapted: ${unused.slice(0, 5).join(', ')}${unused.length > 5 ? ', ...' : ''}; it was made for another base model, or trains what cannot be trained here`);
  }
  if (tensors.size === 0) throw unusableAdapter('it holds no tensors');
  return { plan: withTiedHead({ targets, biases, embedding, saved, norms, tiedHead: null, tokens }, model, tensors), tensors, notices };
}

/** Where a head that is the embedding table has the same factors or the same table as the embedding, they are trained as one. */
function withTiedHead(plan: LoraPlan, { tables }: TunableModel, tensors: ReadonlyMap<string, AdapterTensor>): LoraPlan {
  if (!tables?.tied) return plan;
  const { embedding, head } = tables;
  const floats = (name: string): Float32Array | null => {
    const tensor = tensors.get(name);
    return tensor ? floatsOf(tensor) : null;
  };
  const isTurned = (name: string, other: string): boolean => {
    const [one, two, [rows = 0, columns = 0]] = [floats(name), floats(other), tensors.get(other)?.shape ?? []];
    return one !== null && two !== null && equal(one, transposed(two, rows, columns));
  };
  if (plan.embedding && isTurned(aOf(head), embeddingBOf(embedding)) && isTurned(bOf(head), embeddingAOf(embedding))) {
    return { ...plan, targets: plan.targets.filter(({ path }) => path !== head), tiedHead: head };
  }
  const [table, copy] = [floats(savedOf(embedding)), floats(savedOf(head))];
  if (plan.saved.length === 2 && table && copy && equal(table, copy)) return { ...plan, saved: plan.saved.slice(0, 1), tiedHead: head };
  return plan;
}

function equal(a: Float32Array, b: Float32Array): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

function checkedVector(name: string, size: number, field: string, tensors: ReadonlyMap<string, AdapterTensor>): string {
  const { shape } = tensors.get(name) ?? { shape: [] };
  if (shape.length !== 1 || shape[0] !== size) throw unusableAdapter(`it has ${field}, but "${name}" is not a vector of ${size} numbers`);
  return name;
}

/** Biases that the file holds; some versions of PEFT wrote none of adapted maps. */
function biasesOfFile({ projections }: TunableModel, targets: readonly LoraTarget[], tensors: ReadonlyMap<string, AdapterTensor>, used: Set<string>): LoraPlan['biases'] {
  const adapted = new Set(targets.map(({ path }) => path));
  return projections.flatMap(({ path, outSize, biased }) => {
    const bias = { path, size: outSize, adapted: adapted.has(path) };
    if (!biased || !tensors.has(biasOf(bias))) return [];
    used.add(checkedVector(biasOf(bias), outSize, 'bias', tensors));
    return [bias];
  });
}

function tokensOfFile({ config }: LoadedLoraAdapter, { path, rows: V, width }: { readonly path: string; readonly rows: number; readonly width: number }, tensors: ReadonlyMap<string, AdapterTensor>, used: Set<string>): LoraPlan['tokens'] {
  const rows = tensors.get(tokensOf(path));
  if (!rows) return null;
  const given = config.trainable_token_indices;
  const indices = Array.isArray(given) ? given : Object.entries(given ?? {}).flatMap(([name, list]) => (path === name || path.endsWith(`.${name}`) ? list : []));
  if (rows.shape.join() !== [indices.length, width].join()) throw unusableAdapter(`"${rows.name}" is [${rows.shape.join(', ')}], but trainable_token_indices names ${indices.length} rows of ${width}`);
  const bad = indices.find((index) => index < 0 || index >= V);
  if (bad !== undefined) throw unusableAdapter(`trainable_token_indices names row ${bad}, which is outside of the vocabulary of ${V}`);
  if (new Set(indices).size < indices.length) throw unusableAdapter('trainable_token_indices names a row twice');
  used.add(rows.name);
  return { path, indices, width };
}

/** Up to the rounding of half precision. */
function equalsTable(copy: AdapterTensor, ours: Float32Array): boolean {
  const theirs = floatsOf(copy);
  if (theirs.length !== ours.length) return false;
  const most = ours.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return ours.every((value, index) => Math.abs(value - (theirs[index] as number)) <= most / 128);
}

import { loraAdapterOf, type AdapterFiles } from '@tunefleet/ml-formats';
import { floatsOf } from '../adapter-tensors';
import { withinTimeLimit } from '../matching/time-limit';
import { refuseMerge, type BaseOnDisk, type WeightChange, type WeightChanges } from '../weight-changes';
import type { LoraTarget } from './match';
import { specOf } from './load';
import { aOf, bBiasOf, biasOf, bOf, embeddingAOf, embeddingBOf, magnitudeOf, savedBiasOf, savedOf, tokensOf } from './parameters';
import { plannedBy } from './planned-by-file';

/** A LoRA as a change of weights: W + s B A, with DoRA every row of that brought to its length m. @throws TunefleetError `incompatible_artifact` */
export function mergeLora(base: BaseOnDisk, files: AdapterFiles): WeightChanges {
  const file = loraAdapterOf(files);
  const { use_dora: dora, lora_bias: shifted } = specOf(file.config);
  const { plan, tensors, notices } = withinTimeLimit(() => plannedBy(file, base, (table) => base.table(table)));
  const floats = (name: string): Float32Array => {
    const tensor = tensors.get(name);
    return tensor ? floatsOf(tensor) : new Float32Array();
  };
  const byTensor = new Map<string, WeightChange>();
  const { tables } = base;
  const sharedHead = tables?.tied ? savedOf(tables.head) : null;
  /** Where a tensor starts: a tied head at the embedding. */
  const change = (name: string, apply: WeightChange['apply']): void => {
    byTensor.set(name, { from: name === sharedHead && tables ? savedOf(tables.embedding) : name, apply });
  };
  for (const target of plan.targets) {
    const { path } = target;
    const factors = { a: floats(aOf(path)), b: floats(bOf(path)), magnitude: dora ? floats(magnitudeOf(path)) : null };
    change(savedOf(path), (values) => addLowRank(values, target, factors));
  }
  const { embedding, saved, norms, tokens, biases, tiedHead } = plan;
  const biased = new Set(base.projections.flatMap((projection) => (projection.biased ? [projection.path] : [])));
  const trained = new Map(biases.map((bias) => [bias.path, floats(biasOf(bias))]));
  const shifts = new Map(shifted ? plan.targets.map(({ path, scale }) => [path, floats(bBiasOf(path)).map((value) => scale * value)]) : []);
  for (const path of new Set([...trained.keys(), ...shifts.keys()])) {
    if (!biased.has(path)) throw refuseMerge('LoRA', `it has lora_bias on "${path}", which has no bias in the base`);
    change(`${path}.bias`, (values) => {
      values.set(trained.get(path) ?? values);
      shifts.get(path)?.forEach((shift, index) => ((values[index] as number) += shift));
    });
  }
  if (embedding) {
    const factors = { a: floats(embeddingAOf(embedding.path)), b: floats(embeddingBOf(embedding.path)), magnitude: null };
    // The table is [V, C], the turned weight of a map from V to C.
    change(savedOf(embedding.path), (values) => addLowRank(values, { ...embedding, fanInFanOut: true }, factors));
  }
  for (const { path } of saved) {
    const whole = floats(savedOf(path));
    change(savedOf(path), (values) => values.set(whole));
  }
  for (const name of norms.flatMap(({ path, biased }) => [savedOf(path), ...(biased ? [savedBiasOf(path)] : [])])) {
    const whole = floats(name);
    change(name, (values) => values.set(whole));
  }
  if (tokens) {
    const rows = floats(tokensOf(tokens.path));
    change(savedOf(tokens.path), (values) => tokens.indices.forEach((index, row) => values.set(rows.subarray(row * tokens.width, (row + 1) * tokens.width), index * tokens.width)));
  }
  // An embedding that is adapted or trained whole leaves the head as it was; trained rows, and an embedding adapted together with the head, are the head's, too.
  if (sharedHead !== null && !byTensor.has(sharedHead) && !tiedHead && (embedding || saved.length > 0)) change(sharedHead, () => undefined);
  const ignored = file.ignoredFields.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${file.ignoredFields.join(', ')}`] : [];
  return { byTensor, unties: sharedHead !== null && byTensor.has(sharedHead), notices: [...ignored, ...notices] };
}

export interface LowRankFactors {
  /** [R, in] */
  readonly a: Float32Array;
  /** [out, R] */
  readonly b: Float32Array;
  /** DoRA's m, [out]. */
  readonly magnitude: Float32Array | null;
}

/** Sums in f64, rounded to f32 once. @param values [out, in], or [in, out] with `fanInFanOut` */
export function addLowRank(values: Float32Array, { inSize, outSize, rank, scale, fanInFanOut }: LoraTarget, { a, b, magnitude }: LowRankFactors): void {
  const [rowStep, columnStep] = fanInFanOut ? [1, outSize] : [inSize, 1];
  const sum = new Float64Array(inSize);
  for (let row = 0; row < outSize; row++) {
    sum.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * (b[row * rank + r] as number);
      if (factor === 0) continue;
      for (let i = 0, at = r * inSize; i < inSize; i++, at++) (sum[i] as number) += factor * (a[at] as number);
    }
    let squares = 0;
    for (let i = 0, at = row * rowStep; i < inSize; i++, at += columnStep) {
      const value = (sum[i] as number) + (values[at] as number);
      sum[i] = value;
      squares += value * value;
    }
    const gain = magnitude && squares > 0 ? (magnitude[row] as number) / Math.sqrt(squares) : 1;
    for (let i = 0, at = row * rowStep; i < inSize; i++, at += columnStep) values[at] = gain * (sum[i] as number);
  }
}

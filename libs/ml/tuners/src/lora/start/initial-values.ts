import { fillNormal, fillUniform } from '@tunefleet/foundation';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import type { LoraBundle, Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../../tuner';
import type { LoraPlan } from '../match';
import { aOf, biasOf, bOf, embeddingBOf, magnitudeOf, placesOf, savedOf, sizeOf, tokensOf, type LoraParameter } from '../parameters';
import type { LoraSpec } from '../spec';
import type { StartFactors } from './from-weights';
import { randomOrthonormal } from './orthogonal';
import { frozenBias } from '../bundles';
import { frozenWeight } from '../../full/frozen-weights';
import { frozenRows, frozenTable } from '../token-tables';

/** Binds tensors, one per parameter, to the groups of a model; tensors of the enclosing scope. */
export type BindBundles = (tensors: readonly Tensor[]) => ReadonlyMap<ProjectionGroup, LoraBundle>;

export interface InitialValuesContext {
  readonly model: BindableModel;
  readonly bundles: BindBundles;
  /** By path, where the start follows from the weights. */
  readonly factors: ReadonlyMap<string, StartFactors> | null;
}

/**
 * Start values of every parameter, one after the other. Element i of a target's A and B depends on (seed, target, i) only; magnitudes are the row lengths of the
 * weights as they then are.
 * @see huggingface/peft `tuners/lora/layer.py`, `reset_lora_parameters`
 */
export function loraInitialValues(spec: LoraSpec, plan: LoraPlan, parameters: readonly LoraParameter[], seed: number, start: InitialValuesContext): Float32Array {
  const { targets } = plan;
  const places = placesOf(parameters);
  const values = new Float32Array(parameters.reduce((sum, parameter) => sum + sizeOf(parameter), 0));
  const partOf = (name: string): Float32Array => {
    const { parameter, offset } = places.get(name) as { parameter: LoraParameter; offset: number };
    return values.subarray(offset, offset + sizeOf(parameter));
  };
  for (const [index, { path, rank, inSize }] of targets.entries()) {
    const [a, b] = [partOf(aOf(path)), partOf(bOf(path))];
    const [streamA, streamB] = [2 * index, 2 * index + 1];
    const init = spec.init_lora_weights;
    const given = start.factors?.get(path);
    if (given) {
      a.set(given.a);
      b.set(given.b);
    } else if (init === 'gaussian') {
      fillNormal(a, 1 / rank, seed, streamA);
    } else if (init === 'orthogonal') {
      fillOrthogonal(a, b, rank, seed, [streamA, streamB, orthogonalStream(index, targets.length)]);
    } else {
      fillUniform(a, 1 / Math.sqrt(inSize), seed, streamA);
      if (init === false) fillUniform(b, 1 / Math.sqrt(rank), seed, streamB);
    }
  }
  fillTables(plan, start.model, partOf, { seed, stream: 3 * targets.length });
  if (spec.use_dora) fillMagnitudes(values, parameters, start, partOf);
  return values;
}

/** An embedding's A is zero, its B normal; tables and rows are copies. @see huggingface/peft `tuners/lora/layer.py`, `reset_lora_parameters` */
function fillTables({ biases, embedding, saved, norms, tokens }: LoraPlan, model: BindableModel, partOf: (name: string) => Float32Array, { seed, stream }: { readonly seed: number; readonly stream: number }): void {
  if (embedding) fillNormal(partOf(embeddingBOf(embedding.path)), 1, seed, stream);
  for (const bias of biases) {
    using value = frozenBias(model, bias.path);
    partOf(biasOf(bias)).set(model.device.readFloats(value));
  }
  for (const { path, table } of saved) partOf(savedOf(path)).set(frozenTable(model, table === 'head' ? (model.head ?? null) : null));
  for (const { path, biased } of norms) {
    for (const part of biased ? (['weight', 'bias'] as const) : (['weight'] as const)) partOf(`${path}.${part}`).set(frozenWeight(model, { name: `${path}.${part}`, source: { type: 'norm', path, part } }));
  }
  if (!tokens) return;
  using rows = frozenRows(model, tokens.indices);
  partOf(tokensOf(tokens.path)).set(model.device.readFloats(rows));
}

function fillMagnitudes(values: Float32Array, parameters: readonly LoraParameter[], { model, bundles }: InitialValuesContext, partOf: (name: string) => Float32Array): void {
  const { device } = model;
  device.scope(() => {
    let at = 0;
    const tensors = parameters.map((parameter) => device.tensor(values.slice(at, (at += sizeOf(parameter))), parameter.shape, 'f32'));
    for (const [group, { decomposition }] of bundles(tensors)) {
      const norms = decomposition?.norms.map((norm) => norm && device.readFloats(norm)) ?? [];
      for (const { path, map, row, outSize } of group.members) {
        const norm = norms[map];
        if (norm && parameters.some(({ name }) => name === magnitudeOf(path))) partOf(magnitudeOf(path)).set(norm.subarray(row, row + outSize));
      }
    }
  });
}

/** Streams beyond those of A and B. */
const orthogonalStream = (index: number, targets: number): number => 2 * targets + index;

/**
 * Both factors random with B A = 0: they are spanned by different rows of one orthogonal matrix [R, R].
 * @see huggingface/peft `tuners/lora/layer.py`, `orthogonal_init`
 */
function fillOrthogonal(a: Float32Array, b: Float32Array, rank: number, seed: number, [streamA, streamB, streamQ]: readonly [number, number, number]): void {
  const q = randomOrthonormal(rank, rank, seed, streamQ);
  for (const [target, stream, parity] of [[a, streamA, 0], [b, streamB, 1]] as const) {
    const size = target.length / rank;
    const random = new Float32Array((rank / 2) * size);
    fillNormal(random, 1 / 10, seed, stream);
    for (let row = 0; row < rank; row++) {
      for (let column = 0; column < size; column++) {
        let sum = 0;
        for (let k = 0; k < rank / 2; k++) sum += ((q[2 * k + parity] as Float64Array)[row] as number) * (random[k * size + column] as number);
        target[row * size + column] = sum;
      }
    }
  }
}

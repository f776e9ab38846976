import { invariant, philox4x32 } from '@tunefleet/foundation';
import { writeLoraAdapter } from '@tunefleet/ml-formats';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import { bundleLora, type LoraBundle, type LoraUpdate, type Tensor } from '@tunefleet/ml-tensor';
import type { ComposableHook } from '../composition/composable-hook';
import type { LaneHook } from '../composition/lane-hook';
import type { BindableModel, DropoutKey, StartContext, TunableModel, Tuner } from '../tuner';
import { loraAdapterFile } from './adapter-file';
import { bundleByGroup, forInference, frozenBias, loraHook, tensorsOf, type LoraFactors, type LoraParts } from './bundles';
import { loraLaneKey, loraLanes } from './lanes';
import type { LoraPlan } from './match';
import { aOf, bBiasOf, biasOf, bOf, embeddingAOf, embeddingBOf, loraParameters, magnitudeOf, savedBiasOf, savedOf, sizeOf, tokensOf, type LoraParameter } from './parameters';
import type { LoraSpec } from './spec';
import { startsFromWeights, type StartFactors } from './start/from-weights';
import { loraInitialValues } from './start/initial-values';
import { isWeightStart } from './start/weight-start';
import { groupsOf, headGroup, headRowsUpdate, type EmbeddingParts } from './token-tables';

/** LoRA on what a plan names. */
export class LoraTuner implements Tuner {
  readonly kind = 'lora';
  readonly parameters: readonly LoraParameter[];
  readonly parameterCount: number;
  /** Computed once: it takes minutes for large models. */
  #starts: ReadonlyMap<string, StartFactors> | null = null;

  constructor(
    private readonly spec: LoraSpec,
    private readonly plan: LoraPlan,
  ) {
    this.parameters = loraParameters(spec, plan);
    this.parameterCount = this.parameters.reduce((sum, parameter) => sum + sizeOf(parameter), 0);
  }

  initialValues(seed: number, { model }: StartContext): Float32Array {
    const bundles = (tensors: readonly Tensor[]) => this.bundles(model, groupsOf(model), this.byName(tensors), null);
    return loraInitialValues(this.spec, this.plan, this.parameters, seed, { model, bundles, factors: this.startFactors(model) });
  }

  bind(model: BindableModel, values: readonly Tensor[], dropout: DropoutKey): ComposableHook {
    return loraHook(this.parts(model, values, dropout));
  }

  bindForInference(model: BindableModel, values: readonly Tensor[]): { readonly hook: ComposableHook; readonly tensors: readonly Tensor[] } {
    const parts = forInference(this.parts(model, values, null));
    return { hook: loraHook(parts), tensors: tensorsOf(parts) };
  }

  laneKey(model: TunableModel): string | null {
    return loraLaneKey(this.spec, this.plan, this.parameters, model);
  }

  bindLanes(model: BindableModel, tuners: readonly Tuner[], values: readonly Tensor[]): readonly LaneHook[] {
    return loraLanes(model, tuners.map((tuner) => (tuner as LoraTuner).plan.targets), values);
  }

  /** @param values one tensor per parameter   @returns tensors of the enclosing scope, those given among them */
  parts(model: BindableModel, values: readonly Tensor[], dropout: DropoutKey): LoraParts {
    const named = this.byName(values);
    const head = headGroup(model);
    const bundles = this.bundles(model, head ? [...model.projectionGroups, head] : model.projectionGroups, named, dropout);
    const headLora = (head && bundles.get(head)) ?? null;
    if (head) bundles.delete(head);
    const { embedding, saved, norms, tiedHead, tokens } = this.plan;
    const tableOf = (kind: 'embedding' | 'head') => saved.flatMap(({ path, table }) => (table === kind ? [named.get(savedOf(path)) as Tensor] : []))[0] ?? null;
    const rows = (tokens && named.get(tokensOf(tokens.path))) ?? null;
    const parts: EmbeddingParts = {
      table: tableOf('embedding'),
      lora: embedding && { a: named.get(embeddingAOf(embedding.path)) as Tensor, b: named.get(embeddingBOf(embedding.path)) as Tensor, scale: embedding.scale },
      tokens: tokens && rows && { rows, indices: tokens.indices },
    };
    const tiedRows = tokens && rows && model.head && model.tables?.tied ? bundleLora(model.device, [headRowsUpdate(model, rows, tokens)], [model.head], model.computeDtype) : null;
    const tiedLora = tiedHead !== null && parts.lora && model.head ? bundleLora(model.device, [{ a: parts.lora.b, b: parts.lora.a, scale: parts.lora.scale, map: 0, row: 0, dropout: null }], [model.head], model.computeDtype) : null;
    const adapted = { table: tiedHead === null ? tableOf('head') : parts.table, lora: headLora ?? tiedRows ?? tiedLora };
    return {
      bundles,
      embedding: parts.table ?? parts.lora ?? parts.tokens ? parts : null,
      norms: new Map(norms.map(({ path, biased }) => [path, { weight: named.get(savedOf(path)) as Tensor, bias: biased ? (named.get(savedBiasOf(path)) as Tensor) : null }])),
      head: adapted.table ?? adapted.lora ? adapted : null,
    };
  }

  private byName(values: readonly Tensor[]): ReadonlyMap<string, Tensor> {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    return new Map(this.parameters.map(({ name }, index) => [name, values[index] as Tensor]));
  }

  private bundles(model: BindableModel, groups: readonly ProjectionGroup[], named: ReadonlyMap<string, Tensor>, dropout: DropoutKey): Map<ProjectionGroup, LoraBundle> {
    const rate = this.spec.lora_dropout;
    const starts = this.startFactors(model);
    const bound = this.plan.targets.map(({ path, scale }, index): [string, LoraFactors] => {
      const [a, b] = [named.get(aOf(path)), named.get(bOf(path))] as [Tensor, Tensor];
      const update = { a, b, scale, dropout: dropout && rate > 0 ? { rate, key: maskKey(dropout, index) } : null };
      const bias = named.get(bBiasOf(path));
      const start = starts?.get(path);
      return [path, { updates: start ? updatesLessStart(update, start) : [update], magnitude: named.get(magnitudeOf(path)) ?? null, shifts: bias ? [{ value: bias, scale }] : [] }];
    });
    const factors = new Map(bound);
    for (const each of this.plan.biases) {
      const trained = named.get(biasOf(each)) as Tensor;
      const change = { value: model.device.primitives.sub(trained, frozenBias(model, each.path)), gradientTo: trained, scale: 1 };
      const known = factors.get(each.path) ?? { updates: [], magnitude: null, shifts: [] };
      factors.set(each.path, { ...known, shifts: [...known.shifts, change] });
    }
    return bundleByGroup(model, groups, factors);
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }, model?: BindableModel): Promise<void> {
    const starts = isWeightStart(this.spec.init_lora_weights) ? this.startFactors(model) : null;
    const { adapter, card } = loraAdapterFile({ spec: this.spec, plan: this.plan, parameters: this.parameters, starts }, values, base);
    return writeLoraAdapter(folder, adapter, card);
  }

  /** Null: the adapter starts from nothing of the base. */
  private startFactors(model: BindableModel | undefined): ReadonlyMap<string, StartFactors> | null {
    const { init_lora_weights: init } = this.spec;
    if (!isWeightStart(init)) return null;
    if (this.#starts === null) {
      invariant(model, `a LoRA that began as ${init} needs the model to be saved`);
      this.#starts = startsFromWeights(init, this.plan.targets, model);
    }
    return this.#starts;
  }
}

/**
 * The adapter with its start taken out of the base, y = (W - s B0 A0) x + s B A x, without touching the base, which other jobs use: y = W x + s (B A - B0 A0) x.
 * Without dropout as (B - B0) A + B0 (A - A0), which is exactly zero at the start and keeps its precision in bf16; with dropout, which acts on the trained branch
 * only, as the two products.
 */
function updatesLessStart(update: Omit<LoraUpdate, 'map' | 'row'>, start: StartFactors): Omit<LoraUpdate, 'map' | 'row'>[] {
  const { a, b, scale, dropout } = update;
  const { device } = a;
  const p = device.primitives;
  const [a0, b0] = [device.tensor(start.a.slice(), a.shape, 'f32'), device.tensor(start.b.slice(), b.shape, 'f32')];
  if (dropout) return [update, { a: a0, b: b0, scale: -scale, dropout: null }];
  return [
    { a, b: p.sub(b, b0), scale, dropout: null, gradientTo: { b } },
    { a: p.sub(a, a0), b: b0, scale, dropout: null, gradientTo: { a } },
  ];
}

/** A mask of its own for every target and step. */
function maskKey([seed, counter]: readonly [number, number], index: number): [number, number] {
  const words = philox4x32([counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, index, 2], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return [words[0] | 0, words[1] | 0];
}

import { invariant } from '@tunefleet/foundation';
import type { NormWeights, ProjectionGroup } from '@tunefleet/ml-nn';
import { add, concatColumns, linear, replaceRows, type Tensor } from '@tunefleet/ml-tensor';
import type { ComposableHook } from '../composition/composable-hook';
import { sizeOf, slotsCount } from '../named-parameters/parameter-slots';
import type { BindableModel, StartContext, TunableModel, Tuner } from '../tuner';
import { frozenWeight } from './frozen-weights';
import { planFull, type FullPlan, type TrainedWeight } from './plan';
import { saveFull } from './save';
import type { FullSpec } from './spec';

export function createFullTuner(spec: FullSpec, model: TunableModel): Tuner {
  return new FullTuner(spec, planFull(spec, model), model);
}

/**
 * The model's own weights. The parameters are the weights themselves, not their difference to the base: so weight decay acts on what it is meant for, and a weight
 * is rounded as it would be without a base beside it.
 */
class FullTuner implements Tuner {
  readonly kind = 'full';
  readonly parameters: readonly TrainedWeight[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: FullSpec,
    private readonly plan: FullPlan,
    private readonly model: TunableModel,
  ) {
    this.parameters = plan.weights;
    this.parameterCount = slotsCount(plan.weights);
  }

  /** The base. */
  initialValues(_seed: number, { model }: StartContext): Float32Array {
    const values = new Float32Array(this.parameterCount);
    let at = 0;
    for (const weight of this.parameters) {
      values.set(frozenWeight(model, weight), at);
      at += sizeOf(weight.shape);
    }
    return values;
  }

  bind({ projectionGroups }: BindableModel, values: readonly Tensor[]): ComposableHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const named = new Map(this.parameters.map(({ name }, index) => [name, values[index] as Tensor]));
    const { tables } = this.model;
    const { trains } = this.plan;
    const embeddings = named.get(`${tables?.embedding}.weight`);
    const positions = named.get(`${tables?.positions?.path}.weight`);
    const head = trains.head ? (tables?.tied ? embeddings : named.get(`${tables?.head}.weight`)) : undefined;
    const norms = new Map(this.model.norms.flatMap(({ path }): [string, NormWeights][] => {
      const weight = named.get(`${path}.weight`);
      return weight ? [[path, { weight, bias: named.get(`${path}.bias`) ?? null }]] : [];
    }));
    const trained = new Set(projectionGroups.filter(({ members }) => members.some(({ path }) => named.has(`${path}.weight`))));
    return {
      changeOf: (group) => (trained.has(group) ? { type: 'opaque' } : null),
      project: (x, group, residual) => (trained.has(group) ? project(x, group, residual, named) : null),
      ...(embeddings ? { embed: (embedded: Tensor, ids: Int32Array, scale: number) => replaceRows(embedded, embeddings, ids, scale), replacedTokens: 'all' as const } : {}),
      ...(positions ? { positions } : {}),
      ...(norms.size > 0 ? { norms } : {}),
      ...(head ? { head: { table: head, lora: null } } : {}),
    };
  }

  /** In the compute dtype, so that nothing is cast in every pass. */
  bindForInference(model: BindableModel, values: readonly Tensor[]): { readonly hook: ComposableHook; readonly tensors: readonly Tensor[] } {
    const tensors = values.map((value, index) => (this.parameters[index]?.source.type === 'norm' ? value : model.device.primitives.cast(value, model.computeDtype)));
    return { hook: this.bind(model, tensors), tensors };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    return saveFull(folder, { spec: this.spec, weights: this.parameters, values, base });
  }
}

/** A group's maps with trained weights, one product per projection: stacking them would copy every weight. */
function project(x: Tensor, { maps, members }: ProjectionGroup, residual: Tensor | null, named: ReadonlyMap<string, Tensor>): readonly Tensor[] {
  return x.device.scope(() =>
    maps.map((_, map) => {
      const parts = members
        .filter((member) => member.map === map)
        .sort((a, b) => a.row - b.row)
        .map(({ path, fanInFanOut }) => linear(x, named.get(`${path}.weight`) as Tensor, named.get(`${path}.bias`) ?? null, fanInFanOut ? 'inOut' : 'outIn'));
      const output = parts.length === 1 ? (parts[0] as Tensor) : concatColumns(parts);
      return residual ? add(output, residual) : output;
    }),
  );
}

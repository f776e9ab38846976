import { invariant } from '@tunefleet/foundation';
import { formatAdapterConfig, formatModelCard, writeAdapterFiles, type AdapterFiles, type AdapterTensor } from '@tunefleet/ml-formats';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import { unusableAdapter } from '../adapter-tensors';
import type { ChannelFactor, ComposableHook } from '../composition/composable-hook';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { specOfFile, tensorsOf, valuesOf } from '../named-parameters/named-tensors';
import { ONE, slotsCount, startOf, type ParameterSlot } from '../named-parameters/parameter-slots';
import type { BindableModel, TunableModel, Tuner } from '../tuner';
import type { BaseOnDisk, WeightChange, WeightChanges } from '../weight-changes';
import { scaledGroup } from './scaled-group';
import { ia3Spec, ia3SpecSchema, matchIa3Targets, type Ia3Spec, type Ia3Target } from './spec';

export function createIa3Tuner(spec: Ia3Spec, model: TunableModel): Tuner {
  return new Ia3Tuner(spec, matchIa3Targets(spec, model));
}

/** Learned factors on outputs (bias included), or on inputs of feed-forward maps. */
class Ia3Tuner implements Tuner {
  readonly kind = 'ia3';
  /** The file has factors of outputs as [out, 1]. */
  readonly parameters: readonly ParameterSlot[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: Ia3Spec,
    private readonly targets: readonly Ia3Target[],
  ) {
    const start = spec.init_ia3_weights ? ONE : ({ type: 'normal', deviation: 1 } as const);
    this.parameters = targets.map(({ path, size }) => ({ name: `${path}.ia3_l`, shape: [1, size], start }));
    this.parameterCount = slotsCount(this.parameters);
  }

  initialValues(seed: number): Float32Array {
    return startOf(this.parameters, seed);
  }

  bind(_model: BindableModel, values: readonly Tensor[]): ComposableHook {
    invariant(values.length === this.targets.length, `${this.targets.length} parameters were bound to ${values.length} tensors`);
    const byPath = new Map(this.targets.map(({ path, side }, index): [string, ChannelFactor] => [path, { side, factor: values[index] as Tensor }]));
    const isAdapted = ({ members }: ProjectionGroup): boolean => members.some(({ path }) => byPath.has(path));
    return {
      project: (x, group, residual) => (isAdapted(group) ? x.device.scope(() => scaledGroup(x, group, residual, byPath)) : null),
      changeOf: (group) => (isAdapted(group) ? { type: 'factors', byPath } : null),
    };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const config = {
      peft_type: 'IA3',
      task_type: 'CAUSAL_LM',
      base_model_name_or_path: base.id,
      revision: /^[0-9a-f]{40}$/.test(base.revision) ? base.revision : null,
      inference_mode: true,
      auto_mapping: null,
      target_modules: this.targets.map(({ path }) => path),
      exclude_modules: null,
      feedforward_modules: this.targets.filter(({ side }) => side === 'input').map(({ path }) => path),
      fan_in_fan_out: this.targets.some(({ fanInFanOut }) => fanInFanOut),
      modules_to_save: null,
      init_ia3_weights: this.spec.init_ia3_weights,
    };
    const card = formatModelCard({
      title: `IA3 adapter of ${base.id}`,
      base: base.id,
      revision: config.revision,
      tag: 'ia3',
      method: `IA3 on ${this.targets.length} linear maps`,
      library: 'peft',
      facts: [`Parameters: ${values.length}`],
    });
    const tensors = tensorsOf(this.parameters, values).map((tensor, index) => {
      const { side, size } = this.targets[index] as Ia3Target;
      return { ...tensor, name: PREFIX + tensor.name, shape: side === 'input' ? [1, size] : [size, 1] };
    });
    return writeAdapterFiles(folder, { config: formatAdapterConfig(config), tensors, card });
  }
}

const PREFIX = 'base_model.model.';

/** A PEFT folder of type IA3. Which maps it is for is read from its tensors. @throws TunefleetError `incompatible_artifact` */
export function loadIa3Tuner(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { tuner, values, notices } = readIa3(model, files);
  return openAdapter(model, tuner, values, notices);
}

/** IA3 as a change of weights: factors on outputs go into rows and biases, factors on inputs into columns. @throws TunefleetError `incompatible_artifact` */
export function mergeIa3(base: BaseOnDisk, files: AdapterFiles): WeightChanges {
  const { targets, values, notices } = readIa3(base, files);
  const byTensor = new Map<string, WeightChange>();
  const sizes = new Map(base.projections.map((projection) => [projection.path, projection]));
  let at = 0;
  for (const { path, side, size, fanInFanOut } of targets) {
    const factors = values.subarray(at, (at += size));
    const { inSize = 0, outSize = 0 } = sizes.get(path) ?? {};
    // Factors lie along the last axis for inputs of [out, in] and outputs of [in, out].
    const alongLast = (side === 'input') !== fanInFanOut;
    const lastSize = fanInFanOut ? outSize : inSize;
    byTensor.set(`${path}.weight`, { from: `${path}.weight`, apply: (weight) => scaleBy(weight, (index) => factors[alongLast ? index % lastSize : Math.floor(index / lastSize)] as number) });
    if (side === 'output') byTensor.set(`${path}.bias`, { from: `${path}.bias`, ifPresent: true, apply: (bias) => scaleBy(bias, (index) => factors[index] as number) });
  }
  return { byTensor, unties: false, notices };
}

function scaleBy(values: Float32Array, factor: (index: number) => number): void {
  for (let index = 0; index < values.length; index++) (values[index] as number) *= factor(index);
}

function readIa3(model: TunableModel, files: AdapterFiles) {
  const { task_type: _task, base_model_name_or_path: _base, revision: _revision, inference_mode: _mode, auto_mapping: _mapping, peft_type: _type, peft_version: _version, fan_in_fan_out: _fan, modules_to_save: saved, ...fields } = files.config;
  if (saved !== null && saved !== undefined) throw unusableAdapter(`it has modules_to_save = ${JSON.stringify(saved).slice(0, 100)}, which is supported for LoRA only`);
  const tensors = files.tensors.map((tensor) => ({ ...tensor, name: plainName(tensor.name) }));
  const sides = new Map(tensors.map(({ name, shape }) => [name.slice(0, -'.ia3_l'.length), sideOf(name, shape)]));
  const here = model.projections.filter(({ path }) => sides.has(path)).map(({ path }) => path);
  const stray = [...sides.keys()].filter((path) => !here.includes(path));
  if (stray.length > 0) throw unusableAdapter(`${stray.length} of its tensors belong to no linear map of this ${model.modelType} model that can be adapted: ${stray.slice(0, 5).join(', ')}; it was made for another base model`);
  if (here.length === 0) throw unusableAdapter('it holds no tensors');
  const { value: spec, notices } = specOfFile(fields, Object.keys(ia3SpecSchema.shape), (given) =>
    ia3Spec.parse({ ...given, kind: 'ia3', exclude_modules: null, target_modules: here, feedforward_modules: here.filter((path) => sides.get(path) === 'input') }),
  );
  const targets = matchIa3Targets(spec, model);
  const tuner = new Ia3Tuner(spec, targets);
  const rows = tensors.map((tensor) => ({ ...tensor, shape: [1, tensor.shape[0] === 1 ? (tensor.shape[1] ?? 0) : (tensor.shape[0] ?? 0)] }));
  return { targets, tuner, values: valuesOf(tuner.parameters, rows), notices };
}

function plainName(name: string): string {
  const path = /^(?:base_model\.model\.)?(?<path>.+)\.ia3_l(?:\.(?<adapter>[^.]+))?$/.exec(name)?.groups?.['path'];
  if (path === undefined) throw unusableAdapter(`a tensor that is not known: "${name}"; they should be called <module>.ia3_l`);
  return `${path}.ia3_l`;
}

/** [1, in] scales inputs, [out, 1] outputs. A single number could be either; PEFT has none such. */
function sideOf(name: string, shape: AdapterTensor['shape']): Ia3Target['side'] {
  if (shape.length === 2 && shape[0] === 1) return 'input';
  if (shape.length === 2 && shape[1] === 1) return 'output';
  throw unusableAdapter(`"${name}" is [${shape.join(', ')}], not a row or a column of factors`);
}

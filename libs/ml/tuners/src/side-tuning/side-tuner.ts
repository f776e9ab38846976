import { invariant } from '@tunefleet/foundation';
import { formatAdapterConfig, formatModelCard, writeAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import type { ModelHook, ModuleHook } from '@tunefleet/ml-nn';
import { blend, cast, gelu, linear, type Tensor } from '@tunefleet/ml-tensor';
import { unusableAdapter } from '../adapter-tensors';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { specOfFile, tensorsOf, valuesOf, withoutName } from '../named-parameters/named-tensors';
import { slotsCount, startOf, ZERO, type ParameterSlot } from '../named-parameters/parameter-slots';
import type { BindableModel, TunableModel, Tuner } from '../tuner';
import { matchSideTargets, sideTuningSpec, sideTuningSpecSchema, type SideTuningSpec } from './spec';

export function createSideTuner(spec: SideTuningSpec, model: TunableModel): Tuner {
  return new SideTuner(spec, matchSideTargets(spec, model).map(({ path }) => path), model.hiddenSize);
}

/** a f(x) + (1 - a) S(x) in place of f(x), where S is two linear maps around a GELU and a = sigmoid(alpha). Computed in f32, as by SWIFT. */
class SideTuner implements Tuner {
  readonly kind = 'side-tuning';
  readonly parameters: readonly ParameterSlot[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: SideTuningSpec,
    private readonly targets: readonly string[],
    private readonly width: number,
  ) {
    this.parameters = targets.flatMap((path) => sideSlots(`${path}.side_default`, width));
    this.parameterCount = slotsCount(this.parameters);
  }

  initialValues(seed: number): Float32Array {
    return startOf(this.parameters, seed);
  }

  bind({ computeDtype }: BindableModel, values: readonly Tensor[]): ModelHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const beside = (index: number): ModuleHook => {
      const [alpha, w1, b1, w2, b2] = values.slice(5 * index, 5 * index + 5) as [Tensor, Tensor, Tensor, Tensor, Tensor];
      return (output, input) =>
        output.device.scope(() => {
          const side = linear(gelu(linear(cast(input, 'f32'), w1, b1)), w2, b2);
          return cast(blend(cast(output, 'f32'), side, alpha), computeDtype);
        });
    };
    return { modules: new Map(this.targets.map((path, index) => [path, beside(index)])) };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const { kind: _kind, ...fields } = this.spec;
    const escaped = this.targets.map((path) => path.replaceAll('.', String.raw`\.`));
    const config = { swift_type: 'SIDE', model_key_mapping: null, ...fields, dim: this.width, target_modules: escaped.join('|') };
    const card = formatModelCard({
      title: `Side-Tuning of ${base.id}`,
      base: base.id,
      revision: base.revision,
      tag: 'side-tuning',
      method: `Side-Tuning beside ${this.targets.length === 1 ? this.targets[0] : `${this.targets.length} modules`}`,
      library: 'swift',
      facts: [`Parameters: ${values.length}`],
    });
    return writeAdapterFiles(folder, { config: formatAdapterConfig(config), tensors: tensorsOf(this.parameters, values), card });
  }
}

/** Torch's own start for linear maps. */
function sideSlots(path: string, width: number): ParameterSlot[] {
  const start = { type: 'uniform', bound: 1 / Math.sqrt(width) } as const;
  const map = (name: string): ParameterSlot[] => [
    { name: `${path}.side_net.${name}.weight`, shape: [width, width], start },
    { name: `${path}.side_net.${name}.bias`, shape: [width], start },
  ];
  return [{ name: `${path}.alpha`, shape: [], start: ZERO }, ...map('fc1'), ...map('fc2')];
}

/** A SWIFT folder of type SIDE. Which modules it is for is read from its tensors. @throws TunefleetError `incompatible_artifact` */
export function loadSideTuner(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const tensors = withoutName(files.tensors, /(?<=\.)side_(?<name>[A-Za-z0-9_-]+)(?=\.(alpha|side_net\.))/, 'side_default');
  const paths = [...new Set(tensors.map(({ name }) => name.replace(/\.side_default\..*$/, '')))];
  const here = model.modules.filter(({ path }) => paths.includes(path)).map(({ path }) => path);
  const stray = paths.filter((path) => !here.includes(path));
  if (stray.length > 0) throw unusableAdapter(`${stray.length} of its tensors belong to no module of this ${model.modelType} model that can have a network beside it: ${stray.slice(0, 5).join(', ')}; it was made for another base model`);
  if (here.length === 0) throw unusableAdapter('it holds no tensors');
  const { value: tuner, notices } = specOfFile(files.config, Object.keys(sideTuningSpecSchema.shape), (fields) =>
    createSideTuner(sideTuningSpec.parse({ side_module_name: 'fcn4', ...fields, kind: 'side-tuning', target_modules: here.map((path) => path.replaceAll('.', String.raw`\.`)).join('|') }), model),
  );
  return openAdapter(model, tuner, valuesOf(tuner.parameters, tensors), notices);
}

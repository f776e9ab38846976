import { invariant } from '@tunefleet/foundation';
import { formatAdapterConfig, formatModelCard, writeAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import type { ModelHook, ModuleHook } from '@tunefleet/ml-nn';
import { add, cast, gelu, geluTanh, linear, relu, silu, tanh, type Tensor } from '@tunefleet/ml-tensor';
import { unusableAdapter } from '../adapter-tensors';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { specOfFile, tensorsOf, valuesOf, withoutName } from '../named-parameters/named-tensors';
import { slotsCount, startOf, xavier, ZERO, type ParameterSlot } from '../named-parameters/parameter-slots';
import type { BindableModel, TunableModel, Tuner } from '../tuner';
import { adapterSpec, adapterSpecSchema, matchAdapterTargets, type AdapterSpec, type AdapterTarget } from './spec';

const ACTIVATION: Readonly<Record<AdapterSpec['act_layer'], (x: Tensor) => Tensor>> = { gelu, gelu_new: geluTanh, gelu_pytorch_tanh: geluTanh, relu, silu, swish: silu, tanh };

export function createAdapterTuner(spec: AdapterSpec, model: TunableModel): Tuner {
  return new AdapterTuner(spec, matchAdapterTargets(spec, model), model.hiddenSize);
}

/** x + W2 act(W1 x + b1) + b2 behind each target, computed in f32 as by SWIFT. */
class AdapterTuner implements Tuner {
  readonly kind = 'adapter';
  readonly parameters: readonly ParameterSlot[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: AdapterSpec,
    private readonly targets: readonly AdapterTarget[],
    private readonly width: number,
  ) {
    this.parameters = targets.flatMap(({ path }) => adapterSlots(`${path}.adapter_default`, width, spec));
    this.parameterCount = slotsCount(this.parameters);
  }

  initialValues(seed: number): Float32Array {
    return startOf(this.parameters, seed);
  }

  bind({ computeDtype }: BindableModel, values: readonly Tensor[]): ModelHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const act = ACTIVATION[this.spec.act_layer];
    const behind = (index: number): ModuleHook => {
      const [w1, b1, w2, b2] = values.slice(4 * index, 4 * index + 4) as [Tensor, Tensor, Tensor, Tensor];
      return (output) =>
        output.device.scope(() => {
          const x = cast(output, 'f32');
          return cast(add(x, linear(act(linear(x, w1, b1)), w2, b2)), computeDtype);
        });
    };
    return { modules: new Map(this.targets.map(({ path }, index) => [path, behind(index)])) };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const { kind: _kind, zero_init_last, hidden_pos, ...fields } = this.spec;
    const config = {
      swift_type: 'ADAPTER',
      model_key_mapping: null,
      ...fields,
      hidden_pos: hidden_pos ?? (this.targets.some(({ inTuple }) => inTuple) ? 0 : null),
      ...(zero_init_last ? { zero_init_last } : {}),
      dim: this.width,
      target_modules: this.targets.map(({ path }) => path),
    };
    const card = formatModelCard({
      title: `Adapter of ${base.id}`,
      base: base.id,
      revision: base.revision,
      tag: 'adapter',
      method: `Adapter, ${fields.adapter_length} wide, behind ${this.targets.length} modules`,
      library: 'swift',
      facts: [`Parameters: ${values.length}`],
    });
    return writeAdapterFiles(folder, { config: formatAdapterConfig(config), tensors: tensorsOf(this.parameters, values), card });
  }
}

function adapterSlots(path: string, width: number, { adapter_length: length, zero_init_last: silent }: AdapterSpec): ParameterSlot[] {
  const bias = { type: 'normal', deviation: 1e-6 } as const;
  return [
    { name: `${path}.linear1.weight`, shape: [length, width], start: xavier(width, length) },
    { name: `${path}.linear1.bias`, shape: [length], start: bias },
    { name: `${path}.linear2.weight`, shape: [width, length], start: silent ? ZERO : xavier(length, width) },
    { name: `${path}.linear2.bias`, shape: [width], start: silent ? ZERO : bias },
  ];
}

/** A SWIFT folder of type ADAPTER. Which modules it is for is read from its tensors. @throws TunefleetError `incompatible_artifact` */
export function loadAdapterTuner(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const tensors = withoutName(files.tensors, /(?<=\.)adapter_(?<name>[A-Za-z0-9_-]+)(?=\.linear[12]\.(weight|bias)$)/, 'adapter_default');
  const paths = [...new Set(tensors.map(({ name }) => name.replace(/\.adapter_default\.linear[12]\.(weight|bias)$/, '')))];
  const here = model.modules.filter(({ path }) => paths.includes(path)).map(({ path }) => path);
  const stray = paths.filter((path) => !here.includes(path));
  if (stray.length > 0) throw unusableAdapter(`${stray.length} of its tensors belong to no module of this ${model.modelType} model that can have an adapter: ${stray.slice(0, 5).join(', ')}; it was made for another base model`);
  if (here.length === 0) throw unusableAdapter('it holds no tensors');
  const { value: tuner, notices } = specOfFile(files.config, Object.keys(adapterSpecSchema.shape), (fields) =>
    createAdapterTuner(adapterSpec.parse({ ...fields, kind: 'adapter', target_modules: here }), model),
  );
  return openAdapter(model, tuner, valuesOf(tuner.parameters, tensors), notices);
}

import { invariant } from '@tunefleet/foundation';
import { formatAdapterConfig, formatModelCard, writeAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import type { KeysValues, ModelHook, ModuleHook, PrefixHook } from '@tunefleet/ml-nn';
import { add, cast, type FloatDType, type Tensor } from '@tunefleet/ml-tensor';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import type { BindableModel, Tuner } from '../tuner';
import { specOfFile, tensorsOf, valuesOf, withoutName } from '../named-parameters/named-tensors';
import { slotsCount, startOf, type ParameterSlot } from '../named-parameters/parameter-slots';
import type { Branch } from './plan';
import { planBranches } from './plan';
import { resAdapterBranch } from './res-adapter';
import { resTuningSpec, resTuningSpecSchema, type ResTuningSpec } from './spec';

/**
 * y = f(x) + T(f(x)) on modules f; or, beside attention, (1 - t) Attn(Q, K, V) + t Attn(Q, Kp, Vp) with t the share of softmax's weight that falls on Kp. The latter
 * is attention over [Kp; K] and [Vp; V], term by term: the two softmaxes divide by parts of one sum. So it is computed as keys and values before every row. A query
 * meets Kp as it is rotated for a token behind n others; that only fixes what Kp means, since it is learned.
 */
export class ResTuningTuner implements Tuner {
  readonly kind = 'restuning';
  readonly parameters: readonly ParameterSlot[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: ResTuningSpec,
    private readonly branches: readonly Branch[],
  ) {
    this.parameters = branches.flatMap(({ slots }) => slots);
    this.parameterCount = slotsCount(this.parameters);
  }

  initialValues(seed: number): Float32Array {
    return startOf(this.parameters, seed);
  }

  bind({ computeDtype }: BindableModel, values: readonly Tensor[]): ModelHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const modules = new Map<string, ModuleHook>();
    const prefixes: { readonly layer: number; readonly length: number; readonly k: Tensor; readonly v: Tensor }[] = [];
    let at = 0;
    for (const { site, config, slots } of this.branches) {
      const own = values.slice(at, (at += slots.length));
      if (config.type === 'prefix') {
        const [k, v] = own as [Tensor, Tensor];
        prefixes.push({ layer: site.layer, length: config.length, k, v });
        continue;
      }
      modules.set(site.path, (output) => {
        const remaining = own.values();
        return output.device.scope(() => add(output, resAdapterBranch(output, config, () => remaining.next().value as Tensor)));
      });
    }
    const [first] = prefixes;
    return first ? { modules, prefix: prefixOf(first.length, prefixes.sort((a, b) => a.layer - b.layer), computeDtype) } : { modules };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const config = {
      swift_type: 'RESTUNING',
      model_key_mapping: null,
      stem_modules: this.branches.map(({ site }) => site.path),
      tuner_cfg: this.spec.tuner_cfg,
      zero_init_last: this.spec.zero_init_last,
      use_bypass: false,
    };
    const card = formatModelCard({
      title: `ResTuning of ${base.id}`,
      base: base.id,
      revision: base.revision,
      tag: 'restuning',
      method: `ResTuning, ${this.branches.length} branches`,
      library: 'tunefleet',
      facts: [`Parameters: ${values.length}`, 'SWIFT knows ResTuning with a bypass only and cannot read this'],
    });
    return writeAdapterFiles(folder, { config: formatAdapterConfig(config), tensors: tensorsOf(this.parameters, values), card });
  }
}

/** A folder of ours. @throws TunefleetError `incompatible_artifact` */
export function loadResTuning(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { value: tuner, notices } = specOfFile(files.config, Object.keys(resTuningSpecSchema.shape), (fields) => {
    const spec = resTuningSpec.parse({ ...fields, kind: 'restuning' });
    return new ResTuningTuner(spec, planBranches(spec, model));
  });
  const tensors = withoutName(files.tensors, /(?<=\.)restuner_(?<name>[A-Za-z0-9_-]+)(?=\.[a-z0-9_.]+$)/, 'restuner_default');
  return openAdapter(model, tuner, valuesOf(tuner.parameters, tensors), notices);
}

function prefixOf(length: number, layers: readonly KeysValues[], dtype: FloatDType): PrefixHook {
  return { length, behindPositions: true, keysValues: () => layers.map(({ k, v }) => ({ k: cast(k, dtype), v: cast(v, dtype) })) };
}
